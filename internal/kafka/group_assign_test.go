package kafka

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// tps reads "a0 a1 b7": topics of one letter.
func tps(s string) []TopicPartition {
	var all []TopicPartition
	for _, w := range strings.Fields(s) {
		var p int32
		fmt.Sscan(w[1:], &p)
		all = append(all, TopicPartition{w[:1], p})
	}
	return all
}

func letters(parts []TopicPartition) string {
	var words []string
	for _, tp := range parts {
		words = append(words, fmt.Sprintf("%s%d", tp.Topic, tp.Partition))
	}
	return strings.Join(words, " ")
}

// one is a member: id, or id=instance; topics of one letter each; what it owns.
func one(id, topics, owned string, generation int32) groupMember {
	id, instance, _ := strings.Cut(id, "=")
	return groupMember{id, instance, subscription{strings.Split(topics, ""), tps(owned), generation}}
}

func first(id, topics string) groupMember { return one(id, topics, "", noGeneration) }

// What Java's RangeAssignor gives, from the examples of its documentation and tests.
func TestAssignRange(t *testing.T) {
	for name, c := range map[string]struct {
		members []groupMember
		counts  map[string]int
		want    map[string]string
	}{
		"nobody":        {counts: map[string]int{"t": 3}, want: map[string]string{}},
		"no partitions": {[]groupMember{first("a", "t")}, map[string]int{}, map[string]string{"a": ""}},
		"alone":         {[]groupMember{first("a", "t")}, map[string]int{"t": 3}, map[string]string{"a": "t0 t1 t2"}},
		"javadoc": {[]groupMember{first("C0", "tu"), first("C1", "tu")}, map[string]int{"t": 3, "u": 3},
			map[string]string{"C0": "t0 t1 u0 u1", "C1": "t2 u2"}},
		"more members than partitions": {[]groupMember{first("a", "t"), first("b", "t"), first("c", "t")}, map[string]int{"t": 2},
			map[string]string{"a": "t0", "b": "t1", "c": ""}},
		"topics of their own": {[]groupMember{first("a", "t"), first("b", "tu"), first("c", "t")}, map[string]int{"t": 3, "u": 2},
			map[string]string{"a": "t0", "b": "t1 u0 u1", "c": "t2"}},
		"members in any order": {[]groupMember{first("b", "t"), first("a", "t")}, map[string]int{"t": 3},
			map[string]string{"a": "t0 t1", "b": "t2"}},
		"static members come first, by instance": {[]groupMember{first("0", "t"), first("9=i1", "t"), first("5=i2", "t")}, map[string]int{"t": 3},
			map[string]string{"9": "t0", "5": "t1", "0": "t2"}},
		"what was owned does not matter": {[]groupMember{one("a", "t", "t2", 3), one("b", "t", "t0 t1", 3)}, map[string]int{"t": 3},
			map[string]string{"a": "t0 t1", "b": "t2"}},
	} {
		t.Run(name, func(t *testing.T) { wantDealt(t, assignRange(c.members, c.counts), c.want) })
	}
}

func wantDealt(t *testing.T, got map[string][]TopicPartition, want map[string]string) {
	t.Helper()
	for id := range maps.Keys(got) {
		if _, ok := want[id]; !ok {
			t.Errorf("%s is no member and has %s", id, letters(got[id]))
		}
	}
	for id, w := range want {
		if g := letters(got[id]); g != w {
			t.Errorf("%s has %q, want %q", id, g, w)
		}
	}
}

func TestAssignSticky(t *testing.T) {
	six := map[string]int{"t": 6}
	for name, c := range map[string]struct {
		members []groupMember
		counts  map[string]int
		want    map[string]string
	}{
		"nobody": {counts: six, want: map[string]string{}},
		"alone":  {[]groupMember{first("a", "t")}, six, map[string]string{"a": "t0 t1 t2 t3 t4 t5"}},
		"two at once": {[]groupMember{first("a", "t"), first("b", "t")}, six,
			map[string]string{"a": "t0 t2 t4", "b": "t1 t3 t5"}},
		"a second one comes: what moves is nobody's first": {
			[]groupMember{one("a", "t", "t0 t1 t2 t3 t4 t5", 1), first("b", "t")}, six, map[string]string{"a": "t0 t1 t2", "b": ""}},
		"then it is the second one's": {
			[]groupMember{one("a", "t", "t0 t1 t2", 2), one("b", "t", "", 2)}, six, map[string]string{"a": "t0 t1 t2", "b": "t3 t4 t5"}},
		"one went": {[]groupMember{one("a", "t", "t0 t1 t2", 3), one("c", "t", "t5", 3)}, six,
			map[string]string{"a": "t0 t1 t2", "c": "t3 t4 t5"}},
		"nothing to do": {[]groupMember{one("a", "t", "t1 t3 t5", 3), one("b", "t", "t0 t2 t4", 3)}, six,
			map[string]string{"a": "t1 t3 t5", "b": "t0 t2 t4"}},
		"more partitions": {[]groupMember{one("a", "t", "t0 t1", 3), one("b", "t", "t2 t3", 3)}, six,
			map[string]string{"a": "t0 t1 t4", "b": "t2 t3 t5"}},
		"a topic given up": {[]groupMember{one("a", "u", "t0 t1", 3), one("b", "t", "t2", 3)}, map[string]int{"t": 3, "u": 1},
			map[string]string{"a": "u0", "b": "t2"}},
		"partitions that are no more": {[]groupMember{one("a", "t", "t0 t9 x3", 3)}, map[string]int{"t": 1}, map[string]string{"a": "t0"}},
		"two say they own it, one of them is late": {
			[]groupMember{one("a", "t", "t0 t1", 7), one("b", "t", "t1 t2", 6)}, map[string]int{"t": 3}, map[string]string{"a": "t0 t1", "b": "t2"}},
		"two say so in one generation: both give it up first": {
			[]groupMember{one("a", "t", "t0 t1", 7), one("b", "t", "t1 t2", 7)}, map[string]int{"t": 3}, map[string]string{"a": "t0", "b": "t2"}},
	} {
		t.Run(name, func(t *testing.T) { wantDealt(t, assignSticky(c.members, c.counts), c.want) })
	}
}

// A case is a random group.
type groupCase struct {
	members []groupMember
	counts  map[string]int
}

// randomGroup makes up to 12 members with up to 5 topics; equal ones subscribe to all.
func randomGroup(r *rand.Rand, equal bool) groupCase {
	c := groupCase{counts: make(map[string]int)}
	topics := strings.Split("tuvwx"[:1+r.IntN(5)], "")
	for _, name := range topics {
		c.counts[name] = r.IntN(20)
	}
	for i := range 1 + r.IntN(12) {
		m := groupMember{id: fmt.Sprintf("m%02d-%x", i, r.Uint32())}
		m.generation = noGeneration
		if r.IntN(3) == 0 {
			m.instance = fmt.Sprintf("i%d", 99-i)
		}
		for _, name := range topics {
			if equal || r.IntN(3) > 0 {
				m.topics = append(m.topics, name)
			}
		}
		c.members = append(c.members, m)
	}
	r.Shuffle(len(c.members), func(i, k int) { c.members[i], c.members[k] = c.members[k], c.members[i] })
	return c
}

// settle gives and takes until no member has to give up anything, as a group would,
// and returns what each has then and how many rounds that took.
func (c groupCase) settle(t *testing.T) (rounds int) {
	t.Helper()
	for ; rounds < 5; rounds++ {
		given := assignSticky(c.members, c.counts)
		wantOneOwner(t, c, given)
		gaveUp := false
		for i := range c.members {
			m := &c.members[i]
			for _, tp := range m.owned {
				gaveUp = gaveUp || !slices.Contains(given[m.id], tp)
			}
			m.owned, m.generation = given[m.id], int32(rounds+1)
		}
		if !gaveUp {
			return rounds
		}
	}
	t.Fatalf("the members give up and take for ever: %+v", c)
	return rounds
}

// wantOneOwner checks that nobody is given what another owned before or is given now,
// nor what it did not ask for.
func wantOneOwner(t *testing.T, c groupCase, given map[string][]TopicPartition) {
	t.Helper()
	owner := make(map[TopicPartition]string)
	for _, m := range c.members {
		for _, tp := range m.owned {
			owner[tp] = m.id
		}
	}
	now := make(map[TopicPartition]string)
	for id, parts := range given {
		for _, tp := range parts {
			if other, twice := now[tp]; twice {
				t.Fatalf("%s was given to %s and %s", tp, other, id)
			}
			now[tp] = id
			if was, ok := owner[tp]; ok && was != id {
				t.Fatalf("%s was given to %s while %s owns it", tp, id, was)
			}
			i := slices.IndexFunc(c.members, func(m groupMember) bool { return m.id == id })
			if i < 0 || !slices.Contains(c.members[i].topics, tp.Topic) || int(tp.Partition) >= c.counts[tp.Topic] {
				t.Fatalf("%s was given %s, which it did not ask for", id, tp)
			}
		}
	}
}

// wantAllDealt checks that all partitions that somebody asks for have an owner.
func (c groupCase) wantAllDealt(t *testing.T, given map[string][]TopicPartition) {
	t.Helper()
	want, got := 0, 0
	for _, name := range topicsOf(c.members) {
		want += c.counts[name]
	}
	for _, parts := range given {
		got += len(parts)
	}
	if got != want {
		t.Fatalf("%d partitions were dealt out, want %d: %+v", got, want, c)
	}
}

// wantEven checks that no member has two more than another that could take one.
func (c groupCase) wantEven(t *testing.T) {
	t.Helper()
	for _, heavy := range c.members {
		for _, light := range c.members {
			if len(heavy.owned) < len(light.owned)+2 {
				continue
			}
			for _, tp := range heavy.owned {
				if slices.Contains(light.topics, tp.Topic) {
					t.Fatalf("%s has %d and %s %d, which could take %s", heavy.id, len(heavy.owned), light.id, len(light.owned), tp)
				}
			}
		}
	}
}

func (c groupCase) owned() map[string][]TopicPartition {
	all := make(map[string][]TopicPartition)
	for _, m := range c.members {
		all[m.id] = m.owned
	}
	return all
}

// Through members that come and go and topics that grow: every partition has one
// owner, the load is even, and when all subscribe to the same no more moves than has
// to.
func TestAssignStickyProperties(t *testing.T) {
	for seed := range uint64(600) {
		r := rand.New(rand.NewPCG(seed, 1))
		equal := seed%2 == 0
		c := randomGroup(r, equal)
		c.settle(t)
		for range 4 {
			c.change(r, equal)
			best := c.mostKept()
			before := c.owned()
			c.settle(t)
			c.wantAllDealt(t, c.owned())
			c.wantEven(t)
			kept := 0
			for _, m := range c.members {
				for _, tp := range before[m.id] {
					if slices.Contains(m.owned, tp) {
						kept++
					}
				}
			}
			if equal && kept != best {
				t.Fatalf("seed %d: %d partitions stayed, %d could: %+v", seed, kept, best, c)
			}
			if rounds := c.settle(t); rounds != 0 {
				t.Fatalf("seed %d: partitions move in a group that is settled", seed)
			}
		}
	}
}

// change lets a member come or go, or a topic grow.
func (c *groupCase) change(r *rand.Rand, equal bool) {
	switch k := r.IntN(3); {
	case k == 0 && len(c.members) > 1:
		i := r.IntN(len(c.members))
		c.members = slices.Delete(c.members, i, i+1)
	case k == 1:
		more := randomGroup(r, equal).members[0]
		more.id, more.topics = fmt.Sprintf("n-%x", r.Uint32()), c.members[0].topics
		c.members = append(c.members, more)
	default:
		c.counts["t"] += r.IntN(5)
	}
}

// mostKept is how many partitions can stay when the load is even and all members
// subscribe to the same.
func (c groupCase) mostKept() (kept int) {
	n := 0
	for _, name := range topicsOf(c.members) {
		n += c.counts[name]
	}
	share, more := n/len(c.members), n%len(c.members)
	for _, m := range c.members {
		kept += min(len(m.owned), share)
		if len(m.owned) > share && more > 0 {
			kept++
			more--
		}
	}
	return kept
}

// asJoined is how franz-go sees members.
func (c groupCase) asJoined() (all []kmsg.JoinGroupResponseMember) {
	for _, m := range c.members {
		j := kmsg.JoinGroupResponseMember{MemberID: m.id, ProtocolMetadata: m.append(nil)}
		if m.instance != "" {
			j.InstanceID = &m.instance
		}
		all = append(all, j)
	}
	return all
}

// franzDeals is what franz-go gives.
func (c groupCase) franzDeals(t *testing.T, by kgo.GroupBalancer) map[string][]TopicPartition {
	t.Helper()
	b, _, err := by.MemberBalancer(c.asJoined())
	if err != nil {
		t.Fatal(err)
	}
	counts := make(map[string]int32)
	for name, n := range c.counts {
		counts[name] = int32(n)
	}
	plan := b.Balance
	var given kgo.IntoSyncAssignment
	if f, ok := b.(kgo.GroupMemberBalancerOrError); ok {
		if given, err = f.BalanceOrError(counts); err != nil {
			t.Fatal(err)
		}
	} else {
		given = plan(counts)
	}
	all := make(map[string][]TopicPartition)
	for _, a := range given.IntoSyncAssignment() {
		parts, err := parseAssignment(a.MemberAssignment)
		if err != nil {
			t.Fatal(err)
		}
		all[a.MemberID] = slices.SortedFunc(slices.Values(parts), TopicPartition.Compare)
	}
	return all
}

// The range strategy is a function of the members: any leader deals out the same.
func TestAssignRangeAsFranzDoes(t *testing.T) {
	for seed := range uint64(500) {
		c := randomGroup(rand.New(rand.NewPCG(seed, 2)), seed%3 == 0)
		ours, theirs := assignRange(c.members, c.counts), c.franzDeals(t, kgo.RangeBalancer())
		c.wantAllDealt(t, ours)
		for _, m := range c.members {
			if got, want := letters(ours[m.id]), letters(theirs[m.id]); got != want {
				t.Fatalf("seed %d: %s has %q, franz-go gives %q: %+v", seed, m.id, got, want, c)
			}
		}
	}
}

// Sticky assignments may differ, but each takes the other's for settled, so that a
// change of the leader moves nothing.
func TestAssignStickyBesideFranz(t *testing.T) {
	for seed := range uint64(200) {
		c := randomGroup(rand.New(rand.NewPCG(seed, 3)), true)
		c.settle(t)
		for id, theirs := range c.franzDeals(t, kgo.CooperativeStickyBalancer()) {
			i := slices.IndexFunc(c.members, func(m groupMember) bool { return m.id == id })
			if got, want := letters(theirs), letters(c.members[i].owned); got != want {
				t.Fatalf("seed %d: franz-go moves what is even: %s has %q, it gives %q", seed, id, want, got)
			}
		}
	}
	for seed := range uint64(200) {
		c := randomGroup(rand.New(rand.NewPCG(seed, 4)), true)
		for i, given := 0, c.franzDeals(t, kgo.CooperativeStickyBalancer()); i < len(c.members); i++ {
			c.members[i].owned, c.members[i].generation = given[c.members[i].id], 1
		}
		if rounds := c.settle(t); rounds != 0 {
			t.Fatalf("seed %d: franz-go's even assignment is changed", seed)
		}
	}
}

func BenchmarkAssignSticky(b *testing.B) {
	for _, size := range []struct{ members, parts int }{{10, 1000}, {100, 10000}} {
		b.Run(fmt.Sprintf("members=%d/partitions=%d", size.members, size.parts), func(b *testing.B) {
			b.ReportAllocs()
			counts := map[string]int{"t": size.parts}
			members := []groupMember{{id: "m", subscription: subscription{topics: []string{"t"}}}}
			members[0].owned = assignSticky(members, counts)["m"]
			for i := range size.members - 1 { // all come at once
				members = append(members, first(fmt.Sprintf("n%d", i), "t"))
			}
			for b.Loop() {
				assignSticky(members, counts)
			}
		})
	}
}
