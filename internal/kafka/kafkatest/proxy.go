package kafkatest

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"sync"
	"syscall"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// A Fate is what becomes of a request.
type Fate int

const (
	// Pass lets the request and its answer through.
	Pass Fate = iota
	// CutBefore closes the connection before the broker has anything of the request.
	CutBefore
	// CutHalf closes it when the broker has half of the request.
	CutHalf
	// CutAfter closes it when the broker has answered; the answer is lost.
	CutAfter
	// Swallow drops the answer and leaves the connection open, so that the client
	// waits.
	Swallow
)

// A Request is a request on its way to a broker.
type Request struct {
	Addr    string // of the broker
	Key     kmsg.Key
	Version int16
	N       int    // its number among those of this proxy with the same key, from 1
	Total   int    // its number among all requests of this proxy, from 1
	Frame   []byte // all of it, the length in front included
}

// Decode decodes the request.
func (r Request) Decode() (kmsg.Request, error) {
	req := kmsg.RequestForKey(int16(r.Key))
	if req == nil {
		return nil, fmt.Errorf("request %d is unknown", r.Key)
	}
	req.SetVersion(r.Version)
	b := r.Frame[14:] // length, key, version, correlation, length of the client's name
	if n := int16(binary.BigEndian.Uint16(r.Frame[12:])); n > 0 {
		b = b[n:]
	}
	if req.IsFlexible() {
		b = b[1:] // no tags
	}
	return req, req.ReadFrom(b)
}

// A Proxy stands between a client and its brokers, at the client's side: give its
// Dial to the client. It knows where requests and answers begin and end, without TLS.
// It is safe for concurrent use.
type Proxy struct {
	mu     sync.Mutex
	hook   func(Request) Fate
	count  map[kmsg.Key]int
	total  int
	refuse bool
	pairs  map[*pair]bool
	wg     sync.WaitGroup
}

// NewProxy returns a proxy that lets everything through. It ends with the test, and
// with it every connection.
func NewProxy(t testing.TB) *Proxy {
	p := &Proxy{count: map[kmsg.Key]int{}, pairs: map[*pair]bool{}}
	t.Cleanup(func() {
		p.Refuse(true)
		p.wg.Wait()
	})
	return p
}

// On has f decide the fate of every request from now on, after it was counted; nil
// lets all pass. F is called by many goroutines at once. While it blocks, the request
// and all behind it on the same connection wait.
func (p *Proxy) On(f func(Request) Fate) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hook = f
}

// Cut closes every connection.
func (p *Proxy) Cut() {
	p.mu.Lock()
	pairs := slices.Collect(maps.Keys(p.pairs))
	p.mu.Unlock()
	for _, x := range pairs {
		x.close()
	}
}

// Refuse closes every connection and lets none be made, or lets them be made again.
func (p *Proxy) Refuse(on bool) {
	p.mu.Lock()
	p.refuse = on
	p.mu.Unlock()
	if on {
		p.Cut()
	}
}

// Counted returns how many requests with that key have come.
func (p *Proxy) Counted(key kmsg.Key) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.count[key]
}

// Dial connects to a broker. It is made for kafka.Config.Dial and kgo.Dialer.
func (p *Proxy) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	broker, err := new(net.Dialer).DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	ours, client := net.Pipe()
	x := &pair{client: ours, broker: broker, fates: make(chan Fate, 100), over: make(chan struct{})}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.refuse {
		x.close()
		return nil, &net.OpError{Op: "dial", Net: network, Err: syscall.ECONNREFUSED}
	}
	p.pairs[x] = true
	var both sync.WaitGroup
	both.Go(func() { p.requests(x, addr) })
	both.Go(x.answers)
	p.wg.Go(func() {
		both.Wait()
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.pairs, x)
	})
	return client, nil
}

// fate counts a request and decides.
func (p *Proxy) fate(addr string, frame []byte) Fate {
	if len(frame) < 14 {
		return Pass
	}
	r := Request{Addr: addr, Key: kmsg.Key(binary.BigEndian.Uint16(frame[4:])), Version: int16(binary.BigEndian.Uint16(frame[6:])), Frame: frame}
	p.mu.Lock()
	p.total++
	p.count[r.Key]++
	r.N, r.Total = p.count[r.Key], p.total
	hook := p.hook
	p.mu.Unlock()
	if hook == nil {
		return Pass
	}
	return hook(r)
}

// A pair is a connection of a client and the one to the broker.
type pair struct {
	client, broker net.Conn
	fates          chan Fate // of the requests that were passed on, in order
	once           sync.Once
	over           chan struct{}
}

func (x *pair) close() {
	x.once.Do(func() {
		_ = x.client.Close()
		_ = x.broker.Close()
		close(x.over)
	})
}

func (p *Proxy) requests(x *pair, addr string) {
	defer x.close()
	for {
		frame, err := readFrame(x.client)
		if err != nil {
			return
		}
		f := p.fate(addr, frame)
		switch f {
		case CutBefore:
			return
		case CutHalf:
			_, _ = x.broker.Write(frame[:len(frame)/2])
			return
		}
		select {
		case x.fates <- f:
		case <-x.over:
			return
		}
		if _, err := x.broker.Write(frame); err != nil {
			return
		}
	}
}

func (x *pair) answers() {
	defer x.close()
	for {
		frame, err := readFrame(x.broker)
		if err != nil {
			return
		}
		switch <-x.fates {
		case CutAfter:
			return
		case Swallow:
			continue
		}
		if _, err := x.client.Write(frame); err != nil {
			return
		}
	}
}

// readFrame reads a request or an answer with the length in front.
func readFrame(r io.Reader) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := int64(binary.BigEndian.Uint32(head[:]))
	if n > 200<<20 {
		return nil, fmt.Errorf("a frame of %d bytes", n)
	}
	var b bytes.Buffer
	b.Write(head[:])
	_, err := io.CopyN(&b, r, n)
	return b.Bytes(), err
}
