package kafka

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// franzSubscription is s as franz-go writes it in a version.
func franzSubscription(s subscription, version int16, user []byte) []byte {
	m := kmsg.NewConsumerMemberMetadata()
	m.Version, m.Topics, m.UserData, m.Generation = version, s.topics, user, s.generation
	if version >= 3 {
		rack := "rack-1"
		m.Rack = &rack
	}
	for _, tp := range s.owned {
		if n := len(m.OwnedPartitions); n == 0 || m.OwnedPartitions[n-1].Topic != tp.Topic {
			o := kmsg.NewConsumerMemberMetadataOwnedPartition()
			o.Topic = tp.Topic
			m.OwnedPartitions = append(m.OwnedPartitions, o)
		}
		o := &m.OwnedPartitions[len(m.OwnedPartitions)-1]
		o.Partitions = append(o.Partitions, tp.Partition)
	}
	return m.AppendTo(nil)
}

// Every version that clients write is understood, as far as it tells something.
func TestSubscriptionVersions(t *testing.T) {
	full := subscription{[]string{"t", "u"}, tps("t0 t3 u1"), 7}
	for version := range int16(4) {
		for name, user := range map[string][]byte{"no user data": nil, "user data": []byte("sticky"), "a generation": {0, 0, 0, 9}} {
			t.Run(fmt.Sprintf("%d, %s", version, name), func(t *testing.T) {
				want := subscription{topics: full.topics, generation: noGeneration}
				if version >= 1 {
					want.owned = full.owned
				}
				switch {
				case version >= 2:
					want.generation = full.generation
				case version == 1 && len(user) == 4: // as Java's CooperativeStickyAssignor did
					want.generation = 9
				}
				got, err := parseSubscription(franzSubscription(full, version, user))
				if err != nil || !reflect.DeepEqual(got, want) {
					t.Errorf("parseSubscription = %+v, %v; want %+v", got, err, want)
				}
			})
		}
	}
}

// Bytes of Java's ConsumerProtocol.serializeSubscription, taken apart by hand: what
// versions from 4 on may add stands at the end.
func TestSubscriptionOfTheFuture(t *testing.T) {
	b, err := hex.DecodeString("0009" + "00000001" + "000174" + "ffffffff" + "00000000" + "00000005" + "0002aabb" + "cafe")
	if err != nil {
		t.Fatal(err)
	}
	got, err := parseSubscription(b)
	if want := (subscription{topics: []string{"t"}, generation: 5}); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("parseSubscription = %+v, %v; want %+v", got, err, want)
	}
}

// Some clients write version 1 and the bytes of version 0.
func TestSubscriptionThatEndsEarly(t *testing.T) {
	b := franzSubscription(subscription{topics: []string{"t"}}, 0, nil)
	binary.BigEndian.PutUint16(b, 1)
	if got, err := parseSubscription(b); err != nil || !slices.Equal(got.topics, []string{"t"}) {
		t.Errorf("parseSubscription = %+v, %v", got, err)
	}
	for n := range len(b) {
		if _, err := parseSubscription(b[:n]); err == nil && n != 0 {
			t.Errorf("the first %d bytes of %x are taken for a subscription", n, b)
		}
	}
}

// What is written is read back, by us and by franz-go.
func TestSubscriptionRoundTrip(t *testing.T) {
	for seed := range uint64(300) {
		c := randomGroup(rand.New(rand.NewPCG(seed, 5)), seed%2 == 0)
		c.settle(t)
		for _, m := range c.members {
			s := m.subscription
			b := s.append(nil)
			got, err := parseSubscription(b)
			if err != nil || !slices.Equal(got.topics, s.topics) || !slices.Equal(got.owned, s.owned) || got.generation != s.generation {
				t.Fatalf("parseSubscription = %+v, %v; want %+v", got, err, s)
			}
			var f kmsg.ConsumerMemberMetadata
			if err := f.ReadFrom(b); err != nil {
				t.Fatal(err)
			}
			if again := franzSubscription(s, f.Version, f.UserData); !slices.Equal(again, b) {
				t.Fatalf("franz-go writes %x, we %x", again, b)
			}
			testAssignment(t, s.owned)
		}
	}
}

func testAssignment(t *testing.T, parts []TopicPartition) {
	t.Helper()
	b := appendAssignment(nil, parts)
	if got, err := parseAssignment(b); err != nil || !slices.Equal(got, parts) {
		t.Fatalf("parseAssignment = %v, %v; want %v", got, err, parts)
	}
	var f kmsg.ConsumerMemberAssignment
	if err := f.ReadFrom(b); err != nil {
		t.Fatal(err)
	}
	if again := f.AppendTo(nil); !slices.Equal(again, b) {
		t.Fatalf("franz-go writes %x, we %x", again, b)
	}
	for version := range int16(4) { // as other leaders write it
		f.Version = version
		if got, err := parseAssignment(f.AppendTo(nil)); err != nil || !slices.Equal(got, parts) {
			t.Fatalf("version %d: parseAssignment = %v, %v; want %v", version, got, err, parts)
		}
	}
}

func TestNoAssignment(t *testing.T) {
	for name, b := range map[string][]byte{"null": nil, "nothing": {}, "no topics": appendAssignment(nil, nil)} {
		if got, err := parseAssignment(b); len(got) > 0 || err != nil {
			t.Errorf("%s: parseAssignment = %v, %v", name, got, err)
		}
	}
}

// A foreign member's bytes reach a leader through the coordinator: whatever they are,
// there is no panic, no memory beyond their length, and what is understood is what
// would be written.
func FuzzSubscription(f *testing.F) {
	full := subscription{[]string{"t", "u"}, tps("t0 t3 u1"), 7}
	for version := range int16(4) {
		f.Add(franzSubscription(full, version, []byte{0, 0, 0, 9}))
	}
	f.Add([]byte{})
	f.Add([]byte{0, 1, 0x7f, 0xff, 0xff, 0xff, 0, 1, 't'})
	f.Add([]byte{0, 1, 0, 0, 0, 1, 0xff, 0xff, 't'})
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := parseSubscription(b)
		if len(s.topics)+len(s.owned) > len(b) {
			t.Fatalf("%d topics and %d partitions from %d bytes", len(s.topics), len(s.owned), len(b))
		}
		if err != nil {
			return
		}
		got, err := parseSubscription(s.append(nil))
		if err != nil || !slices.Equal(got.topics, s.topics) || !slices.Equal(got.owned, s.owned) || got.generation != s.generation {
			t.Fatalf("written and read again: %+v, %v; want %+v", got, err, s)
		}
		var theirs kmsg.ConsumerMemberMetadata
		if err := theirs.ReadFrom(b); err == nil && theirs.Version >= 0 && theirs.Version <= 3 && !slices.Equal(theirs.Topics, s.topics) {
			t.Fatalf("topics %q, franz-go reads %q", s.topics, theirs.Topics)
		}
		assignSticky([]groupMember{{id: "a", subscription: s}, {id: "b", subscription: full}}, map[string]int{"t": 4, "u": 2})
		assignRange([]groupMember{{id: "a", subscription: s}, {id: "b", subscription: full}}, map[string]int{"t": 4, "u": 2})
	})
}

func FuzzAssignment(f *testing.F) {
	f.Add(appendAssignment(nil, tps("t0 t3 u1")))
	f.Add([]byte{0, 1})
	f.Add([]byte{0, 1, 0, 0, 0, 1, 0, 1, 't', 0x7f, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		parts, err := parseAssignment(b)
		if len(parts) > len(b) {
			t.Fatalf("%d partitions from %d bytes", len(parts), len(b))
		}
		if err != nil {
			return
		}
		if got, err := parseAssignment(appendAssignment(nil, parts)); err != nil || !slices.Equal(got, parts) {
			t.Fatalf("written and read again: %v, %v; want %v", got, err, parts)
		}
	})
}
