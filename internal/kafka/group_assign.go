package kafka

import (
	"cmp"
	"slices"
	"strings"
)

// The assignment strategies, by the names that all clients know them under.
const (
	strategyRange       = "range"
	strategyCooperative = "cooperative-sticky"
)

// A groupMember is a member as its leader sees it.
type groupMember struct {
	id, instance string
	subscription
}

// byInstance orders static members by their instance, before dynamic ones by id, as
// Java's clients do, so that a static member keeps its partitions over restarts.
func byInstance(a, b groupMember) int {
	switch {
	case a.instance != "" && b.instance != "":
		return strings.Compare(a.instance, b.instance)
	case a.instance != "":
		return -1
	case b.instance != "":
		return 1
	}
	return strings.Compare(a.id, b.id)
}

// assignRange deals each topic's partitions out in consecutive ranges, the first
// members getting one more when it does not come out even. Counts holds the
// partitions of each topic.
func assignRange(members []groupMember, counts map[string]int) map[string][]TopicPartition {
	out := make(map[string][]TopicPartition, len(members))
	members = slices.SortedFunc(slices.Values(members), byInstance)
	for _, topic := range topicsOf(members) {
		var some []groupMember
		for _, m := range members {
			if slices.Contains(m.topics, topic) {
				some = append(some, m)
			}
		}
		next, n := 0, counts[topic]
		for i, m := range some {
			share := n / len(some)
			if i < n%len(some) {
				share++
			}
			for range share {
				out[m.id] = append(out[m.id], TopicPartition{topic, int32(next)})
				next++
			}
		}
	}
	return out
}

// assignSticky deals partitions out evenly and lets members keep what they own, as
// far as that is even. A partition that is to move is given to nobody yet: its owner
// gives it up when it learns that, and joins again (KIP-429).
func assignSticky(members []groupMember, counts map[string]int) map[string][]TopicPartition {
	members = slices.SortedFunc(slices.Values(members), byInstance)
	var all []TopicPartition
	for _, topic := range topicsOf(members) {
		for i := range counts[topic] {
			all = append(all, TopicPartition{topic, int32(i)})
		}
	}
	owner := make(map[TopicPartition]string)
	claimed := make(map[TopicPartition]bool) // by several: nobody's word is taken
	for _, m := range members {
		for _, tp := range m.owned {
			if _, twice := owner[tp]; twice {
				claimed[tp] = true
			}
			owner[tp] = m.id
		}
	}
	out := make(map[string][]TopicPartition, len(members))
	for _, m := range members {
		out[m.id] = nil
	}
	var free []TopicPartition
	for _, tp := range all {
		id, ok := owner[tp]
		i := slices.IndexFunc(members, func(m groupMember) bool { return m.id == id })
		if ok && !claimed[tp] && i >= 0 && slices.Contains(members[i].topics, tp.Topic) {
			out[id] = append(out[id], tp)
		} else {
			free = append(free, tp)
		}
	}
	for _, tp := range free {
		if id, ok := lightest(members, out, tp.Topic, ""); ok {
			out[id] = append(out[id], tp)
		}
	}
	balance(members, out)
	for id := range out { // what moves from a living owner is nobody's for now
		out[id] = slices.DeleteFunc(out[id], func(tp TopicPartition) bool {
			was, ok := owner[tp]
			return ok && !claimed[tp] && was != id && slices.ContainsFunc(members, func(m groupMember) bool { return m.id == was })
		})
		slices.SortFunc(out[id], TopicPartition.Compare)
	}
	return out
}

// lightest returns the member with the fewest partitions among those that take the
// topic, but for one.
func lightest(members []groupMember, out map[string][]TopicPartition, topic, but string) (id string, ok bool) {
	for _, m := range members {
		if m.id == but || !slices.Contains(m.topics, topic) {
			continue
		}
		if !ok || len(out[m.id]) < len(out[id]) {
			id, ok = m.id, true
		}
	}
	return id, ok
}

// balance moves partitions from the heaviest members to lighter ones until none
// has two more than another that could take one.
func balance(members []groupMember, out map[string][]TopicPartition) {
	for {
		moved := false
		heavy := slices.SortedFunc(slices.Values(members), func(a, b groupMember) int {
			return cmp.Or(cmp.Compare(len(out[b.id]), len(out[a.id])), byInstance(a, b))
		})
		for _, m := range heavy {
			mine := out[m.id]
			for k := len(mine) - 1; k >= 0 && !moved; k-- {
				to, ok := lightest(members, out, mine[k].Topic, m.id)
				if ok && len(mine) > len(out[to])+1 {
					out[to] = append(out[to], mine[k])
					out[m.id] = slices.Delete(mine, k, k+1)
					moved = true
				}
			}
			if moved {
				break
			}
		}
		if !moved {
			return
		}
	}
}

func topicsOf(members []groupMember) []string {
	var all []string
	for _, m := range members {
		all = append(all, m.topics...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}
