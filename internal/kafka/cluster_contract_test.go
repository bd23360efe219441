package kafka_test

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"reflect"
	"runtime"
	"strings"
	"testing"

	kafkago "github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/addoffsetstotxn"
	"github.com/segmentio/kafka-go/protocol/addpartitionstotxn"
	"github.com/segmentio/kafka-go/protocol/apiversions"
	"github.com/segmentio/kafka-go/protocol/describegroups"
	"github.com/segmentio/kafka-go/protocol/endtxn"
	_ "github.com/segmentio/kafka-go/protocol/fetch"
	"github.com/segmentio/kafka-go/protocol/findcoordinator"
	"github.com/segmentio/kafka-go/protocol/heartbeat"
	"github.com/segmentio/kafka-go/protocol/initproducerid"
	"github.com/segmentio/kafka-go/protocol/joingroup"
	"github.com/segmentio/kafka-go/protocol/leavegroup"
	"github.com/segmentio/kafka-go/protocol/listoffsets"
	"github.com/segmentio/kafka-go/protocol/metadata"
	"github.com/segmentio/kafka-go/protocol/offsetcommit"
	"github.com/segmentio/kafka-go/protocol/offsetfetch"
	_ "github.com/segmentio/kafka-go/protocol/produce"
	"github.com/segmentio/kafka-go/protocol/syncgroup"
	"github.com/segmentio/kafka-go/protocol/txnoffsetcommit"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// What this package relies on in kafka-go, and what it works around. A test of a fault
// that fails means that kafka-go was mended: then the way around it may go.

// decodeAnswer decodes with kafka-go what a broker would send.
func decodeAnswer(key kmsg.Key, version int16, a kmsg.Response) (protocol.Message, error) {
	r := kmsg.RequestForKey(int16(key))
	r.SetVersion(version)
	_, m, err := protocol.ReadResponse(bytes.NewReader(appendAnswer(nil, 1, r, a)), protocol.ApiKey(key), version)
	return m, err
}

func TestFaultHeartbeatErrorIsLost(t *testing.T) {
	for version, want := range map[int16]int16{0: 27, 1: 0, 3: 0} {
		a := kmsg.NewPtrHeartbeatResponse()
		a.ErrorCode = 27
		m, err := decodeAnswer(kmsg.Heartbeat, version, a)
		if err != nil || m.(*heartbeat.Response).ErrorCode != want {
			t.Errorf("v%d: %+v, %v: kafka-go does not swap error and throttle time any more: heartbeatRequest may go", version, m, err)
		}
	}
	if _, ok := any(&heartbeat.Request{}).(protocol.GroupMessage); ok {
		t.Error("heartbeats know their group now")
	}
}

func TestFaultLeaveErrorIsLost(t *testing.T) {
	for version, want := range map[int16]int16{0: 25, 1: 0, 3: 0} {
		a := kmsg.NewPtrLeaveGroupResponse()
		a.ErrorCode = 25
		m, err := decodeAnswer(kmsg.LeaveGroup, version, a)
		if err != nil || m.(*leavegroup.Response).ErrorCode != want {
			t.Errorf("v%d: %+v, %v: kafka-go does not swap error and throttle time any more: leaveRequest may go", version, m, err)
		}
	}
}

// The strings that SyncGroup v5 added may be null in answers of a coordinator that
// has none; kafka-go writes and reads them as they are not.
func TestFaultSyncGroupStopsAtThree(t *testing.T) {
	a := kmsg.NewPtrSyncGroupResponse()
	a.ErrorCode = 27
	m, err := decodeAnswer(kmsg.SyncGroup, 3, a)
	if err != nil || m.(*syncgroup.Response).ErrorCode != 27 || len(m.(*syncgroup.Response).Assignments) != 0 {
		t.Errorf("v3: %+v, %v; want error 27", m, err)
	}
	rq := encodeRequest(t, 5, &syncgroup.Request{GroupID: "g", MemberID: "m"})
	var r kmsg.SyncGroupRequest
	r.SetVersion(5)
	err = r.ReadFrom(rq)
	if err == nil && r.ProtocolType == nil {
		t.Error("v5: kafka-go writes no protocol as null now")
	}
}

func TestFaultAnswersAreDecodedBeforeTheyAreKnown(t *testing.T) {
	// A wrong correlation id is seen only after everything was decoded.
	rw := &canned{answer: []byte("\x00\x00\x00\x0a\x00\x00\x00\x63\x00\x00\x00\x00\x00\x00")}
	if m, err := protocol.RoundTrip(rw, 0, 1, "", &apiversions.Request{}); err == nil || !strings.Contains(err.Error(), "correlation id") {
		t.Errorf("RoundTrip = %v, %v", m, err)
	}
	// A count is believed: this one is of 8 million versions in an answer of 10 bytes.
	b := []byte("\x00\x00\x00\x0a\x00\x00\x00\x01\x00\x00\x00\x80\x00\x00")
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, _, _ = protocol.ReadResponse(bytes.NewReader(b), protocol.ApiVersions, 0)
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; grown < 16<<20 {
		t.Errorf("it took %d bytes: kafka-go bounds arrays now: check may go", grown)
	}
	// A negative length is a panic.
	if p := panics(func() {
		_, _, _ = protocol.ReadResponse(bytes.NewReader([]byte("\xff\xff\xff\xff\x00\x00\x00\x01\x00\x00")), protocol.ApiVersions, 0)
	}); p == nil {
		t.Error("kafka-go does not panic at a negative length any more")
	}
	// An answer is made before its fields are missed, which check goes by.
	_, m, err := protocol.ReadResponse(bytes.NewReader([]byte{0, 0, 0, 4, 0, 0, 0, 1}), protocol.Metadata, 8)
	if _, ok := m.(*metadata.Response); !ok || err == nil {
		t.Errorf("an empty answer is %T, %v; want a *metadata.Response and an error", m, err)
	}
}

func panics(f func()) (p any) {
	defer func() { p = recover() }()
	f()
	return nil
}

// canned answers the same whatever was asked.
type canned struct {
	answer []byte
	asked  bytes.Buffer
}

func (c *canned) Write(b []byte) (int, error) { return c.asked.Write(b) }
func (c *canned) Read(b []byte) (int, error) {
	if len(c.answer) == 0 {
		return 0, io.EOF
	}
	n := copy(b, c.answer)
	c.answer = c.answer[n:]
	return n, nil
}

// encodeRequest returns a request's bytes behind the header.
func encodeRequest(t *testing.T, version int16, m protocol.Message) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := protocol.WriteRequest(&b, version, 1, "c", m); err != nil {
		t.Fatal(err)
	}
	r := kmsg.RequestForKey(int16(m.ApiKey()))
	r.SetVersion(version)
	head := 4 + 2 + 2 + 4 + 2 + 1
	if r.IsFlexible() {
		head++
	}
	return b.Bytes()[head:]
}

// The versions that kafka-go speaks. Where one grows, look whether the new version
// helps, or is laid out right (see TestLayouts), since it is spoken from then on.
func TestVersionsOfKafkaGo(t *testing.T) {
	for key, want := range map[protocol.ApiKey][2]int16{
		protocol.Produce: {0, 8}, protocol.Fetch: {0, 11}, protocol.ListOffsets: {1, 5}, protocol.Metadata: {0, 8},
		protocol.OffsetCommit: {0, 7}, protocol.OffsetFetch: {0, 5}, protocol.FindCoordinator: {0, 2}, protocol.JoinGroup: {0, 7},
		protocol.Heartbeat: {0, 4}, protocol.LeaveGroup: {0, 4}, protocol.SyncGroup: {0, 5}, protocol.DescribeGroups: {0, 5},
		protocol.ApiVersions: {0, 2}, protocol.InitProducerId: {0, 4}, protocol.AddPartitionsToTxn: {0, 3},
		protocol.AddOffsetsToTxn: {0, 3}, protocol.EndTxn: {0, 3}, protocol.TxnOffsetCommit: {0, 3},
	} {
		if got := [2]int16{key.MinVersion(), key.MaxVersion()}; got != want {
			t.Errorf("%v: versions %d, want %d", key, got, want)
		}
	}
}

// RawExchange gets the connection, and Prepare comes before everything.
func TestExchangesOfKafkaGo(t *testing.T) {
	for code, want := range map[kafkago.Error]bool{
		3: true, 5: true, 6: true, 7: true, 14: true, 15: true, 16: true, 19: true, 20: true,
		22: false, 25: false, 27: false, 29: false, 30: false, 51: false, 58: false, 79: false, 82: false,
	} {
		if code.Temporary() != want {
			t.Errorf("error %d: Temporary = %v, want %v", code, code.Temporary(), want)
		}
	}
}

// Every request that is sent and every answer that is read by kafka-go lies on the
// wire as franz-go has it, in every version that may be spoken.
func TestLayouts(t *testing.T) {
	for _, c := range []struct {
		from, to int16
		request  protocol.Message
	}{
		{0, 0, &apiversions.Request{}},
		{0, 8, &metadata.Request{}},
		{0, 2, &findcoordinator.Request{}},
		{1, 5, &listoffsets.Request{}},
		{0, 5, &offsetfetch.Request{}},
		{0, 7, &offsetcommit.Request{}},
		{5, 5, &joingroup.Request{}},
		{3, 3, &syncgroup.Request{}},
		{3, 3, &heartbeat.Request{}},
		{3, 3, &leavegroup.Request{}},
		{0, 5, &describegroups.Request{}},
		{0, 1, &initproducerid.Request{}},
		{0, 1, &addpartitionstotxn.Request{}},
		{0, 1, &addoffsetstotxn.Request{}},
		{0, 1, &endtxn.Request{}},
		{0, 3, &txnoffsetcommit.Request{}},
	} {
		for version := c.from; version <= c.to; version++ {
			t.Run(fmt.Sprintf("%v v%d", c.request.ApiKey(), version), func(t *testing.T) {
				testRequestLayout(t, version, c.request)
				if key := c.request.ApiKey(); key != protocol.Heartbeat && key != protocol.LeaveGroup {
					testAnswerLayout(t, version, key)
				}
			})
		}
	}
}

// testRequestLayout has franz-go read what kafka-go wrote and write it again.
func testRequestLayout(t *testing.T, version int16, m protocol.Message) {
	m = reflect.New(reflect.TypeOf(m).Elem()).Interface().(protocol.Message)
	n := int64(1)
	fill(reflect.ValueOf(m).Elem(), &n)
	if p, ok := m.(protocol.PreparedMessage); ok {
		p.Prepare(version)
	}
	b := encodeRequest(t, version, m)
	r := kmsg.RequestForKey(int16(m.ApiKey()))
	r.SetVersion(version)
	if err := r.ReadFrom(b); err != nil {
		t.Fatalf("franz-go reads %x: %v", b, err)
	}
	if got := r.AppendTo(nil); !bytes.Equal(got, b) {
		t.Errorf("kafka-go writes\n%x, franz-go\n%x", b, got)
	}
	want := numbers(b)
	if want < 1 && m.ApiKey() != protocol.ApiVersions {
		t.Errorf("the request is empty: %x", b)
	}
}

// testAnswerLayout has kafka-go read what franz-go wrote and write it again.
func testAnswerLayout(t *testing.T, version int16, key protocol.ApiKey) {
	r := kmsg.RequestForKey(int16(key))
	r.SetVersion(version)
	a := r.ResponseKind()
	n := int64(1)
	fill(reflect.ValueOf(a).Elem(), &n)
	want := appendAnswer(nil, 1, r, a)
	_, m, err := protocol.ReadResponse(bytes.NewReader(want), key, version)
	if err != nil {
		t.Fatalf("kafka-go reads %x: %v", want, err)
	}
	var got bytes.Buffer
	if err := protocol.WriteResponse(&got, version, 1, m); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), want) {
		t.Errorf("franz-go writes\n%x, kafka-go reads and writes\n%x", want, got.Bytes())
	}
}

// numbers counts the bytes that are not zero.
func numbers(b []byte) (n int) {
	for _, c := range b {
		if c != 0 {
			n++
		}
	}
	return n
}

// fill gives every field a value of its own.
func fill(v reflect.Value, n *int64) {
	*n++
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(*n % math.MaxInt8)
	case reflect.String:
		v.SetString(fmt.Sprintf("s%d", *n))
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), n)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range v.Len() {
			fill(v.Index(i), n)
		}
	case reflect.Array:
		for i := range v.Len() {
			fill(v.Index(i), n)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			switch f := v.Type().Field(i); {
			case f.Name == "_", f.Name == "Version", f.Name == "UnknownTags":
			default:
				fill(v.Field(i), n)
			}
		}
	}
}
