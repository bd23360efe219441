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
	byID := make(map[string]groupMember, len(members))
	out := make(map[string][]TopicPartition, len(members))
	for _, m := range members {
		byID[m.id] = m
		out[m.id] = nil
	}
	claims := claimsOf(members)
	var free []TopicPartition
	for _, topic := range topicsOf(members) {
		for i := range counts[topic] {
			tp := TopicPartition{topic, int32(i)}
			if id := claims[tp].owner; id != "" && slices.Contains(byID[id].topics, topic) {
				out[id] = append(out[id], tp)
			} else {
				free = append(free, tp)
			}
		}
	}
	for _, tp := range free {
		if id, ok := lightest(members, out, tp.Topic, ""); ok {
			out[id] = append(out[id], tp)
		}
	}
	balance(members, out)
	for id := range out {
		out[id] = slices.DeleteFunc(out[id], func(tp TopicPartition) bool {
			c := claims[tp]
			return id != c.owner && slices.ContainsFunc(c.by, func(other string) bool { return other != id })
		})
		slices.SortFunc(out[id], TopicPartition.Compare)
	}
	return out
}

// A claim is who says to own a partition.
type claim struct {
	by         []string // members
	generation int32    // the youngest of theirs
	owner      string   // who is right; "" when that is not clear
}

// claimsOf gathers what members say to own. Of several the one of the youngest
// generation is right: the others missed a rebalance. Nobody else may have a
// partition before all have given it up.
func claimsOf(members []groupMember) map[TopicPartition]claim {
	claims := make(map[TopicPartition]claim)
	for _, m := range members {
		for _, tp := range m.owned {
			c, taken := claims[tp]
			c.by = append(c.by, m.id)
			switch {
			case !taken || m.generation > c.generation:
				c.owner, c.generation = m.id, m.generation
			case m.generation == c.generation:
				c.owner = ""
			}
			claims[tp] = c
		}
	}
	return claims
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
