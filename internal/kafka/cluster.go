package kafka

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/apiversions"
)

// Config says how to reach a cluster. Only Brokers must be set.
type Config struct {
	Brokers        []string // host:port of at least one broker
	ClientID       string   // "" means elbo
	Security       Security
	DialTimeout    time.Duration // of one connection with all its steps; 0 means 5 s
	RequestTimeout time.Duration // of one request; 0 means 30 s
	// Dial opens connections; nil means a net.Dialer. Tests put faults here.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	Log  *slog.Logger // nil means silence
}

func (c Config) withDefaults() Config {
	if c.ClientID == "" {
		c.ClientID = "elbo"
	}
	if c.DialTimeout == 0 {
		c.DialTimeout = 5 * time.Second
	}
	if c.RequestTimeout == 0 {
		c.RequestTimeout = 30 * time.Second
	}
	if c.Dial == nil {
		c.Dial = new(net.Dialer).DialContext
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

// Same reports whether two configurations reach the same cluster, as far as their
// broker lists tell.
func (c Config) Same(o Config) bool {
	return slices.ContainsFunc(c.Brokers, func(b string) bool { return slices.Contains(o.Brokers, b) })
}

// The lanes of AskBroker: each is a connection of its own, so that a request that
// waits at the broker holds up no other.
const (
	laneControl = "control"
	laneProduce = "produce"
	laneFetch   = "fetch"
	laneGroup   = "group"
)

// A Cluster is the connections to a cluster and what is known of it. It is safe
// for concurrent use.
type Cluster struct {
	c     Config
	lanes atomic.Uint32 // producers made

	mu       sync.Mutex
	closed   bool
	conns    map[connKey]*conn
	brokers  map[int32]string // address by id
	topics   map[string][]int32
	stale    map[string]bool // topics whose leaders must be asked for again
	refresh  *refresh        // under way
	failures int             // refreshes in a row that failed or found no leader
	groups   map[string]int32
	txns     map[string]int32
}

type connKey struct {
	addr, lane string
}

// Open connects to the first broker that answers, logs in and learns what the
// cluster is. When none answers the error tells, for each address, which step
// failed.
func Open(ctx context.Context, c Config) (*Cluster, error) {
	c = c.withDefaults()
	if len(c.Brokers) == 0 {
		return nil, errors.New("kafka: brokers: name at least one, as in localhost:9092")
	}
	if err := c.Security.validate(); err != nil {
		return nil, err
	}
	cl := &Cluster{c: c, conns: make(map[connKey]*conn), brokers: make(map[int32]string), topics: make(map[string][]int32),
		stale: make(map[string]bool), groups: make(map[string]int32), txns: make(map[string]int32)}
	if err := cl.askMetadata(ctx, []string{}); err != nil {
		return nil, errors.Join(err, cl.Close())
	}
	return cl, nil
}

// Close closes every connection; requests that wait fail.
func (cl *Cluster) Close() error {
	cl.mu.Lock()
	cl.closed = true
	conns := slices.Collect(maps.Values(cl.conns))
	clear(cl.conns)
	cl.mu.Unlock()
	for _, c := range conns {
		c.kill()
	}
	return nil
}

// ErrClosed is the error of a Cluster that was closed.
var ErrClosed = errors.New("kafka: the connections are closed")

// A conn is one connection with one request at a time.
type conn struct {
	addr  string
	turn  chan struct{} // holds a token while nobody uses the connection
	renew time.Time     // when the login ends; zero means never

	mu   sync.Mutex // guards the rest
	c    *protocol.Conn
	dead bool
}

// kill closes the connection for good.
func (c *conn) kill() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dead = true
	if c.c != nil {
		_ = c.c.Close()
		c.c = nil
	}
}

// lease returns the connection of a lane to an address, ready and alone with the
// caller, who gives it back with done.
func (cl *Cluster) lease(ctx context.Context, addr, lane string) (*conn, error) {
	cl.mu.Lock()
	if cl.closed {
		cl.mu.Unlock()
		return nil, ErrClosed
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
		return nil, ctx.Err()
	}
	if err := cl.ready(ctx, c); err != nil {
		c.turn <- struct{}{}
		return nil, err
	}
	return c, nil
}

// ready connects c unless it is connected.
func (cl *Cluster) ready(ctx context.Context, c *conn) error {
	c.mu.Lock()
	dead, open := c.dead, c.c != nil
	if open && !c.renew.IsZero() && time.Now().After(c.renew) {
		_ = c.c.Close()
		c.c, open = nil, false
	}
	c.mu.Unlock()
	if dead {
		return ErrClosed
	}
	if open {
		return nil
	}
	pc, renew, err := cl.dial(ctx, c.addr)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead {
		_ = pc.Close()
		return ErrClosed
	}
	c.c, c.renew = pc, renew
	return nil
}

// done gives the connection back. After an error its state is unknown: an answer
// may still come, to be taken for another request's.
func (c *conn) done(err error) {
	if err != nil {
		c.mu.Lock()
		if c.c != nil {
			_ = c.c.Close()
			c.c = nil
		}
		c.mu.Unlock()
	}
	c.turn <- struct{}{}
}

// dial opens a connection: TCP, TLS, versions, login.
func (cl *Cluster) dial(ctx context.Context, addr string) (*protocol.Conn, time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, cl.c.DialTimeout)
	defer cancel()
	raw, err := cl.c.Dial(ctx, "tcp", addr)
	if err != nil {
		return nil, time.Time{}, dialError(addr, err)
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		host = addr
	}
	safe, err := cl.c.Security.wrap(ctx, raw, host)
	if err != nil {
		_ = raw.Close()
		return nil, time.Time{}, err
	}
	pc := protocol.NewConn(safe, cl.c.ClientID)
	deadline, _ := ctx.Deadline()
	_ = pc.SetDeadline(deadline)
	stop := context.AfterFunc(ctx, func() { _ = pc.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	versions, err := negotiate(pc)
	if err != nil {
		_ = pc.Close()
		return nil, time.Time{}, fmt.Errorf("%s: ask for the versions it speaks: %w", addr, err)
	}
	pc.SetVersions(versions)
	renew, err := cl.c.Security.login(ctx, pc, host)
	if err != nil {
		_ = pc.Close()
		return nil, time.Time{}, err
	}
	_ = pc.SetDeadline(time.Time{})
	return pc, renew, nil
}

// dialError says what kept us from an address, and what to look at.
func dialError(addr string, err error) error {
	var dns *net.DNSError
	if errors.As(err, &dns) {
		return fmt.Errorf("%s: the name %q is not known: %w", addr, dns.Name, err)
	}
	return fmt.Errorf("%s: connect: %w", addr, err)
}

// negotiate returns the highest version of each API that both sides speak.
func negotiate(pc *protocol.Conn) (map[protocol.ApiKey]int16, error) {
	m, err := pc.RoundTrip(&apiversions.Request{})
	if err != nil {
		return nil, err
	}
	r := m.(*apiversions.Response)
	if r.ErrorCode != 0 {
		return nil, kafka.Error(r.ErrorCode)
	}
	versions := make(map[protocol.ApiKey]int16)
	for _, k := range r.ApiKeys {
		key := protocol.ApiKey(k.ApiKey)
		if k.MinVersion <= key.MaxVersion() && k.MaxVersion >= key.MinVersion() {
			versions[key] = min(k.MaxVersion, key.MaxVersion())
		}
	}
	return versions, nil
}

// ask sends m on a lane to an address.
func (cl *Cluster) ask(ctx context.Context, addr, lane string, m protocol.Message) (protocol.Message, error) {
	ctx, cancel := context.WithTimeout(ctx, cl.c.RequestTimeout+waitOf(m))
	defer cancel()
	c, err := cl.lease(ctx, addr, lane)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	pc := c.c
	c.mu.Unlock()
	if pc == nil {
		c.done(nil)
		return nil, ErrClosed
	}
	deadline, _ := ctx.Deadline()
	_ = pc.SetDeadline(deadline)
	stop := context.AfterFunc(ctx, func() { _ = pc.SetDeadline(time.Unix(1, 0)) })
	got, err := pc.RoundTrip(m)
	if !stop() && err == nil { // the deadline may hit the next request
		err = ctx.Err()
	}
	c.done(err)
	if err != nil {
		if e := ctx.Err(); e != nil && !errors.Is(err, e) {
			err = errors.Join(e, err)
		}
		return nil, fmt.Errorf("%s: %v: %w", addr, m.ApiKey(), err)
	}
	return got, nil
}

// waitOf is how long a request may wait at the broker by its own will.
func waitOf(m protocol.Message) time.Duration {
	if w, ok := m.(interface{ wait() time.Duration }); ok {
		return w.wait()
	}
	return 0
}

// AskBroker sends m to a broker by its id, on a lane of its own.
func (cl *Cluster) AskBroker(ctx context.Context, broker int32, lane string, m protocol.Message) (protocol.Message, error) {
	cl.mu.Lock()
	addr, ok := cl.brokers[broker]
	cl.mu.Unlock()
	if !ok {
		return nil, fmt.Errorf("broker %d is not in the cluster's metadata", broker)
	}
	return cl.ask(ctx, addr, lane, m)
}

// AskAny sends m to a broker that answers: those that are known first, then the
// configured ones.
func (cl *Cluster) AskAny(ctx context.Context, m protocol.Message) (protocol.Message, error) {
	var errs []error
	for _, addr := range cl.addresses() {
		got, err := cl.ask(ctx, addr, laneControl, m)
		if err == nil {
			return got, nil
		}
		var auth *AuthError
		if errors.As(err, &auth) || ctx.Err() != nil {
			return nil, err
		}
		errs = append(errs, err)
	}
	return nil, fmt.Errorf("no broker answers: %w", errors.Join(errs...))
}

// addresses lists connected brokers first.
func (cl *Cluster) addresses() []string {
	cl.mu.Lock()
	defer cl.mu.Unlock()
	var first, rest []string
	for _, id := range slices.Sorted(maps.Keys(cl.brokers)) {
		addr := cl.brokers[id]
		if cl.conns[connKey{addr, laneControl}] != nil {
			first = append(first, addr)
		} else {
			rest = append(rest, addr)
		}
	}
	all := append(first, rest...)
	for _, b := range cl.c.Brokers {
		if !slices.Contains(all, b) {
			all = append(all, b)
		}
	}
	return all
}

// AskLeader sends m to the leader of a partition.
func (cl *Cluster) AskLeader(ctx context.Context, tp TopicPartition, lane string, m protocol.Message) (protocol.Message, error) {
	id, err := cl.Leader(ctx, tp)
	if err != nil {
		return nil, err
	}
	got, err := cl.AskBroker(ctx, id, lane, m)
	if err != nil {
		cl.Stale(tp.Topic)
	}
	return got, err
}

func hostPort(host string, port int32) string { return net.JoinHostPort(host, strconv.Itoa(int(port))) }
