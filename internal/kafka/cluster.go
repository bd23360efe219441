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
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/segmentio/kafka-go/protocol"
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
	lanes atomic.Uint32 // producers and groups made, each with a lane of its own

	mu       sync.Mutex
	closed   bool
	conns    map[connKey]*conn
	trouble  map[string]time.Time // when an address last failed, until it answers again
	brokers  map[int32]string     // address by id
	topics   map[string]*topic
	refresh  *refresh // under way
	answered time.Time
	gap      time.Duration    // how long after answered to ask again, at least
	groups   map[string]int32 // coordinators
	txns     map[string]int32
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
	cl := &Cluster{c: c, conns: make(map[connKey]*conn), trouble: make(map[string]time.Time), brokers: make(map[int32]string),
		topics: make(map[string]*topic), gap: firstPause, groups: make(map[string]int32), txns: make(map[string]int32)}
	if _, err := cl.askMetadata(ctx, []string{}, openHedge); err != nil {
		return nil, errors.Join(err, cl.Close())
	}
	return cl, nil
}

// Close closes every connection; requests that wait fail.
func (cl *Cluster) Close() error {
	cl.mu.Lock()
	cl.closed = true
	cl.mu.Unlock()
	cl.hangUpWhere(func(connKey) bool { return true })
	return nil
}

// ErrClosed is the error of a Cluster that was closed.
var ErrClosed = errors.New("kafka: the connections are closed")

// ask sends m on a lane to an address. It has RequestTimeout, all told, and the time
// that m itself asks the broker to wait.
func (cl *Cluster) ask(ctx context.Context, addr, lane string, m protocol.Message) (protocol.Message, error) {
	ctx, cancel := context.WithTimeout(ctx, cl.c.RequestTimeout+waitOf(m))
	defer cancel()
	c, l, err := cl.lease(ctx, addr, lane)
	if err != nil {
		cl.note(ctx, addr, err)
		return nil, err
	}
	var got protocol.Message
	err = l.limit(ctx, func() (err error) { got, err = l.roundTrip(cl.c.ClientID, m); return err })
	c.done(err)
	cl.note(ctx, addr, err)
	if err != nil {
		return nil, fmt.Errorf("%s: %v request: %w", addr, m.ApiKey(), err)
	}
	return got, nil
}

// note remembers whether an address works. That the caller gave up says nothing.
func (cl *Cluster) note(ctx context.Context, addr string, err error) {
	cl.mu.Lock()
	defer cl.mu.Unlock()
	switch {
	case err == nil:
		delete(cl.trouble, addr)
	case !errors.Is(ctx.Err(), context.Canceled):
		cl.trouble[addr] = time.Now()
	}
}

// waitOf is how long a request may wait at the broker by its own will.
func waitOf(m protocol.Message) time.Duration {
	if w, ok := m.(interface{ wait() time.Duration }); ok {
		return w.wait()
	}
	return 0
}

// AskBroker sends m to a broker by its id, on a lane of its own. The deadline is
// RequestTimeout, or ctx's when that comes first.
func (cl *Cluster) AskBroker(ctx context.Context, broker int32, lane string, m protocol.Message) (protocol.Message, error) {
	cl.mu.Lock()
	addr, ok := cl.brokers[broker]
	cl.mu.Unlock()
	if !ok {
		return nil, fmt.Errorf("broker %d is not in the cluster's metadata", broker)
	}
	return cl.ask(ctx, addr, lane, m)
}

// How long AskAny waits for one broker before it asks the next one as well.
const (
	openHedge  = 200 * time.Millisecond
	usualHedge = time.Second
)

// AskAny sends m to a broker that answers: those that did so last come first, the
// configured ones last. A broker that takes long is not waited for alone, so m must
// do no harm when several get it.
func (cl *Cluster) AskAny(ctx context.Context, m protocol.Message) (protocol.Message, error) {
	return cl.askAny(ctx, m, usualHedge)
}

func (cl *Cluster) askAny(ctx context.Context, m protocol.Message, hedge time.Duration) (protocol.Message, error) {
	type answer struct {
		m   protocol.Message
		err error
	}
	addrs := cl.addresses()
	answers := make(chan answer, len(addrs))
	var wg sync.WaitGroup
	defer wg.Wait()
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	asked := 0
	next := func() {
		if asked < len(addrs) {
			addr := addrs[asked]
			asked++
			wg.Go(func() {
				got, err := cl.ask(inner, addr, laneControl, m)
				answers <- answer{got, err}
			})
		}
	}
	next()
	tick := time.NewTicker(hedge)
	defer tick.Stop()
	var errs []error
	for len(errs) < len(addrs) {
		select {
		case <-tick.C:
			next()
		case a := <-answers:
			if a.err == nil {
				return a.m, nil
			}
			var auth *AuthError
			if errors.As(a.err, &auth) || errors.Is(a.err, ErrClosed) || ctx.Err() != nil {
				return nil, a.err
			}
			errs = append(errs, a.err)
			if len(errs) == asked {
				next()
			}
		}
	}
	if len(errs) == 1 {
		return nil, errs[0]
	}
	return nil, fmt.Errorf("no broker answers: %w", several(errs))
}

// several are errors that read as one line.
type several []error

// Error lists the errors.
func (s several) Error() string {
	var words []string
	for _, err := range s {
		words = append(words, err.Error())
	}
	return strings.Join(words, "; ")
}

// Unwrap returns the errors.
func (s several) Unwrap() []error { return s }

// addresses lists the brokers: those without trouble first and of these the connected
// ones, then those whose trouble is oldest.
func (cl *Cluster) addresses() []string {
	cl.mu.Lock()
	defer cl.mu.Unlock()
	var all []string
	for _, id := range slices.Sorted(maps.Keys(cl.brokers)) {
		all = append(all, cl.brokers[id])
	}
	all = append(all, cl.c.Brokers...)
	seen := make(map[string]bool)
	all = slices.DeleteFunc(all, func(a string) bool {
		twice := seen[a]
		seen[a] = true
		return twice
	})
	slices.SortStableFunc(all, func(a, b string) int {
		if c := cl.trouble[a].Compare(cl.trouble[b]); c != 0 {
			return c
		}
		return cl.rank(a) - cl.rank(b)
	})
	return all
}

// rank puts addresses with a connection first. The caller holds mu.
func (cl *Cluster) rank(addr string) int {
	if cl.conns[connKey{addr, laneControl}] != nil {
		return 0
	}
	return 1
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
