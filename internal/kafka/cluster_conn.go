package kafka

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/apiversions"
)

// A conn is one connection with one request at a time; it is dialled at its first
// use, and again after an error.
type conn struct {
	addr string
	turn chan struct{} // holds a token while nobody uses the connection

	mu   sync.Mutex // guards the rest
	live *live      // nil means not connected
	dead bool       // given up: nobody dials it again
}

// A live is a connection that is open and logged in.
type live struct {
	*protocol.Conn
	versions map[protocol.ApiKey]span // what the broker speaks
	renew    time.Time                // when the login ends; zero means never
	seen     shapes
}

// A span is the first and the last version of a request.
type span struct{ from, to int16 }

// A connKey names a conn.
type connKey struct{ addr, lane string }

// errGivenUp is the error of a connection that is no longer needed.
var errGivenUp = errors.New("the connection was given up")

// kill closes the connection for good.
func (c *conn) kill() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dead = true
	c.hangUp()
}

// hangUp closes the connection. The caller holds mu.
func (c *conn) hangUp() {
	if c.live != nil {
		_ = c.live.Close() // nothing is written that an error could be about
		c.live = nil
	}
}

// lease returns the connection of a lane to an address, ready and alone with the
// caller, who gives it back with done.
func (cl *Cluster) lease(ctx context.Context, addr, lane string) (*conn, *live, error) {
	cl.mu.Lock()
	if cl.closed {
		cl.mu.Unlock()
		return nil, nil, ErrClosed
	}
	key := connKey{addr, lane}
	c := cl.conns[key]
	if c == nil {
		c = &conn{addr: addr, turn: make(chan struct{}, 1)}
		c.turn <- struct{}{}
		cl.conns[key] = c
	}
	cl.mu.Unlock()
	select {
	case <-c.turn:
	case <-ctx.Done():
		return nil, nil, fmt.Errorf("wait for the request before: %w", ctx.Err())
	}
	l, err := cl.ready(ctx, c)
	if err != nil {
		c.turn <- struct{}{}
		return nil, nil, err
	}
	return c, l, nil
}

// ready connects c unless it is connected.
func (cl *Cluster) ready(ctx context.Context, c *conn) (*live, error) {
	c.mu.Lock()
	if c.live != nil && !c.live.renew.IsZero() && time.Now().After(c.live.renew) {
		c.hangUp()
	}
	l, dead := c.live, c.dead
	c.mu.Unlock()
	if dead {
		return nil, cl.givenUp()
	}
	if l != nil {
		return l, nil
	}
	l, err := cl.dial(ctx, c.addr)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead {
		_ = l.Close()
		return nil, cl.givenUp()
	}
	c.live = l
	return l, nil
}

// givenUp is the error of a connection that was killed.
func (cl *Cluster) givenUp() error {
	cl.mu.Lock()
	defer cl.mu.Unlock()
	if cl.closed {
		return ErrClosed
	}
	return errGivenUp
}

// done gives the connection back. After an error its state is unknown: an answer
// may still come, to be taken for another request's, so it is closed.
func (c *conn) done(err error) {
	if err != nil {
		c.mu.Lock()
		c.hangUp()
		c.mu.Unlock()
	}
	c.turn <- struct{}{}
}

// hangUpLane closes the connections of a lane, which nobody uses any more.
func (cl *Cluster) hangUpLane(lane string) {
	cl.hangUpWhere(func(k connKey) bool { return k.lane == lane })
}

// hangUpWhere closes and forgets connections.
func (cl *Cluster) hangUpWhere(some func(connKey) bool) {
	cl.mu.Lock()
	var gone []*conn
	for k, c := range cl.conns {
		if some(k) {
			gone = append(gone, c)
			delete(cl.conns, k)
		}
	}
	cl.mu.Unlock()
	for _, c := range gone {
		c.kill()
	}
}

// dial opens a connection: name, TCP, TLS, versions, login. Its errors say which of
// these went wrong.
func (cl *Cluster) dial(ctx context.Context, addr string) (*live, error) {
	ctx, cancel := context.WithTimeout(ctx, cl.c.DialTimeout)
	defer cancel()
	raw, err := cl.c.Dial(ctx, "tcp", addr)
	if err != nil {
		return nil, cl.dialError(addr, err)
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		host = addr
	}
	safe, err := cl.c.Security.wrap(ctx, raw, host)
	if err != nil {
		_ = raw.Close()
		return nil, err
	}
	l, err := cl.greet(ctx, protocol.NewConn(safe, cl.c.ClientID), addr, host)
	if err != nil {
		_ = safe.Close()
		return nil, err
	}
	return l, nil
}

// greet asks for the broker's versions and logs in.
func (cl *Cluster) greet(ctx context.Context, pc *protocol.Conn, addr, host string) (*live, error) {
	l := &live{Conn: pc, seen: shapes{}}
	if err := l.limit(ctx, func() (err error) { l.versions, err = askVersions(pc, cl.c.ClientID); return err }); err != nil {
		if errors.Is(err, context.DeadlineExceeded) {
			err = fmt.Errorf("connected, but no answer within %v: is it a Kafka broker, and its port for clients? %w", cl.c.DialTimeout, err)
		}
		return nil, fmt.Errorf("%s: ask for its versions: %w", addr, err)
	}
	l.SetVersions(negotiate(l.versions))
	var err error
	if l.renew, err = cl.c.Security.login(ctx, pc, host); err != nil {
		return nil, err
	}
	return l, nil
}

// limit calls f, whose reads and writes on the connection end with ctx. Behind an
// error the connection is of no use.
func (l *live) limit(ctx context.Context, f func() error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := l.SetDeadline(time.Time{}); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = l.SetDeadline(time.Unix(1, 0)) })
	err := f()
	switch {
	case stop():
		return err
	case err == nil: // the deadline is about to hit
		return ctx.Err()
	}
	return fmt.Errorf("%w: %w", ctx.Err(), err)
}

// dialError says what kept us from an address, and what to look at.
func (cl *Cluster) dialError(addr string, err error) error {
	who := addr
	if !slices.Contains(cl.c.Brokers, addr) {
		who += " (so a broker calls itself, see its advertised.listeners)"
	}
	var dns *net.DNSError
	switch {
	case errors.As(err, &dns):
		return fmt.Errorf("%s: look up the name %q: %w", who, dns.Name, err)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%s: connect: no answer within %v: check the address and the firewalls between: %w", who, cl.c.DialTimeout, err)
	}
	return fmt.Errorf("%s: connect: %w", who, err)
}

// askVersions asks for the versions of each request that the broker speaks.
func askVersions(rw io.ReadWriter, clientID string) (map[protocol.ApiKey]span, error) {
	m, err := exchange(rw, 0, clientID, &apiversions.Request{})
	if err != nil {
		return nil, err
	}
	r := m.(*apiversions.Response)
	if r.ErrorCode != 0 {
		return nil, kafka.Error(r.ErrorCode)
	}
	versions := make(map[protocol.ApiKey]span, len(r.ApiKeys))
	for _, k := range r.ApiKeys {
		versions[protocol.ApiKey(k.ApiKey)] = span{k.MinVersion, k.MaxVersion}
	}
	return versions, nil
}

// negotiate returns the highest version of each request that both sides speak.
func negotiate(broker map[protocol.ApiKey]span) map[protocol.ApiKey]int16 {
	versions := make(map[protocol.ApiKey]int16)
	for key, b := range broker {
		if b.from <= key.MaxVersion() && b.to >= key.MinVersion() {
			versions[key] = min(b.to, key.MaxVersion())
		}
	}
	return versions
}

// A VersionError says that a broker and this program have no version of a request in
// common.
type VersionError struct {
	API      string // the request's name
	From, To int16  // what the broker speaks; To is -1 when it does not know the request
	Min, Max int16  // what this program speaks
}

// Error names both sides' versions.
func (e *VersionError) Error() string {
	if e.To < 0 {
		return fmt.Sprintf("the broker does not know %s requests", e.API)
	}
	which := "an older"
	if e.To < e.Min {
		which = "a newer"
	}
	return fmt.Sprintf("the broker speaks versions %d to %d of %s requests, this program %d to %d: %s broker is needed",
		e.From, e.To, e.API, e.Min, e.Max, which)
}

// Permanent is always true: asking again does not help.
func (*VersionError) Permanent() bool { return true }

// A fixed message goes out in one version only.
type fixed interface{ apiVersion() int16 }

// version returns the highest version of m's request that both sides speak.
func (l *live) version(m protocol.Message) (int16, error) {
	key := m.ApiKey()
	lo, hi := key.MinVersion(), key.MaxVersion()
	if f, ok := m.(fixed); ok {
		lo, hi = f.apiVersion(), f.apiVersion()
	}
	b, ok := l.versions[key]
	if !ok {
		return 0, &VersionError{API: key.String(), To: -1, Min: lo, Max: hi}
	}
	if b.from > hi || b.to < lo {
		return 0, &VersionError{API: key.String(), From: b.from, To: b.to, Min: lo, Max: hi}
	}
	return min(b.to, hi), nil
}

// roundTrip sends m and reads its answer. After an error the connection is of no use.
func (l *live) roundTrip(clientID string, m protocol.Message) (protocol.Message, error) {
	if raw, ok := m.(protocol.RawExchanger); ok {
		if _, ok := m.(fixed); ok {
			if _, err := l.version(m); err != nil {
				return nil, err
			}
		}
		return raw.RawExchange(l)
	}
	version, err := l.version(m)
	if err != nil {
		return nil, err
	}
	if p, ok := m.(protocol.PreparedMessage); ok {
		p.Prepare(version)
	}
	return exchange(l, version, clientID, m)
}

// ownCorrelation is the id of requests written here: one is under way at a time, and
// a connection whose answer did not come is closed.
const ownCorrelation = 1

// maxAnswer bounds the answers that exchange reads, in bytes; metadata of a hundred
// thousand partitions is about 5 MB.
const maxAnswer = 64 << 20

// exchange sends m in a version and reads its answer. Kafka-go would decode an answer
// before it looks whose it is, and trust its length.
func exchange(rw io.ReadWriter, version int16, clientID string, m protocol.Message) (protocol.Message, error) {
	if err := protocol.WriteRequest(rw, version, ownCorrelation, clientID, m); err != nil {
		return nil, err
	}
	frame, err := readFrame(rw)
	if err != nil {
		return nil, err
	}
	var seen shapes
	if l, ok := rw.(*live); ok {
		seen = l.seen
	}
	return decodeFrame(frame, version, m.ApiKey(), seen)
}

// readFrame reads an answer to the request ownCorrelation, with its length in front.
func readFrame(r io.Reader) ([]byte, error) {
	var head [8]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n < 4 || n > maxAnswer {
		return nil, fmt.Errorf("an answer of %d bytes", n)
	}
	if id := int32(binary.BigEndian.Uint32(head[4:])); id != ownCorrelation {
		return nil, fmt.Errorf("the answer is to request %d, want %d", id, ownCorrelation)
	}
	frame := make([]byte, 4+n)
	copy(frame, head[:])
	if _, err := io.ReadFull(r, frame[8:]); err != nil {
		return nil, fmt.Errorf("read an answer of %d bytes: %w", n, err)
	}
	return frame, nil
}

// decodeFrame decodes an answer. Seen may be nil.
func decodeFrame(frame []byte, version int16, key protocol.ApiKey, seen shapes) (protocol.Message, error) {
	err := seen.check(frame, version, key)
	var m protocol.Message
	if err == nil {
		_, m, err = protocol.ReadResponse(bytes.NewReader(frame), key, version)
	}
	if err != nil {
		return nil, fmt.Errorf("the answer to %v v%d is malformed: %w", key, version, err)
	}
	return m, nil
}
