package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// unknownFor is how long an unknown id is not asked for again, so that a topic full
// of it does not wait the grace for each message.
const unknownFor = time.Minute

// Bounds of what a schema refers to.
const (
	maxReferences = 1000
	maxDepth      = 32
)

// Client asks a registry. What it has got by an id or a version it keeps for ever,
// and it asks for each once at a time. It is safe for concurrent use.
type Client struct {
	c     Config
	bases []string
	base  atomic.Uint32 // which one is tried first
	http  http.Client
	idle  func() // closes idle connections; may be nil

	mu         sync.Mutex
	ids        table[int32]
	versions   map[version]*Schema
	registered table[registration]
	spent      []time.Time // when graces ended in vain, within unknownFor
}

type version struct {
	subject string
	version int
}

type registration struct {
	subject string
	typ     Type
	text    string
	lookup  bool
}

// table holds answers, and those that are under way.
type table[K comparable] map[K]*answer

// An answer is written before done is closed, and then no more.
type answer struct {
	done   chan struct{}
	schema *Schema
	err    error // ErrUnknownSchema only
	until  time.Time
}

// once returns the answer that t keeps for key. Where there is none it asks, or
// waits for who does so already; errors other than ErrUnknownSchema are not kept,
// so that each caller waits with its own context.
func once[K comparable](ctx context.Context, c *Client, t table[K], key K, ask func() (*Schema, error)) (*Schema, error) {
	for {
		c.mu.Lock()
		a := t[key]
		if a == nil {
			a = &answer{done: make(chan struct{})}
			t[key] = a
			c.mu.Unlock()
			return settle(c, t, key, a, ask)
		}
		c.mu.Unlock()
		select {
		case <-a.done:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		if a.schema != nil || a.err != nil && time.Now().Before(a.until) {
			return a.schema, a.err
		}
		c.mu.Lock()
		if t[key] == a { // an old unknown; or who asked gave up
			delete(t, key)
		}
		c.mu.Unlock()
	}
}

// settle asks and writes the answer down.
func settle[K comparable](c *Client, t table[K], key K, a *answer, ask func() (*Schema, error)) (*Schema, error) {
	s, err := ask()
	a.schema = s
	if errors.Is(err, ErrUnknownSchema) {
		a.err, a.until = err, time.Now().Add(unknownFor)
	}
	if s == nil && a.err == nil {
		c.mu.Lock()
		delete(t, key)
		c.mu.Unlock()
	}
	close(a.done)
	return s, err
}

// Close gives up idle connections. Calls that are under way go on.
func (c *Client) Close() {
	if c.idle != nil {
		c.idle()
	}
}

// mostGraces is how many ids may be waited for in vain within unknownFor: a topic of
// garbage, in which each message names another id, does not stand still for each.
const mostGraces = 3

// grace is how long the next id may be unknown.
func (c *Client) grace() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.spent = slices.DeleteFunc(c.spent, func(at time.Time) bool { return time.Since(at) > unknownFor })
	if len(c.spent) >= mostGraces {
		return 0
	}
	return c.c.Grace
}

// spend notes that a grace was in vain.
func (c *Client) spend(err error) {
	if !errors.Is(err, ErrUnknownSchema) {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.spent = append(c.spent, time.Now())
}

// Schema returns the schema with an id, and all that it refers to.
func (c *Client) Schema(ctx context.Context, id int32) (*Schema, error) {
	return once(ctx, c, c.ids, id, func() (*Schema, error) {
		var got wireSchema
		var err error
		name := fmt.Sprintf("schema %d", id)
		if c.c.Dir != "" {
			got, err = c.file(strconv.Itoa(int(id)), name)
		} else {
			err = c.ask(ctx, request{what: name, path: "/schemas/ids/" + strconv.Itoa(int(id)), grace: c.grace()}, &got)
			c.spend(err)
		}
		if err != nil {
			return nil, err
		}
		if got.ID = id; got.Text == "" {
			return nil, fmt.Errorf("%s: an answer without a schema", name)
		}
		return c.resolve(ctx, got, &walk{})
	})
}

// Latest returns the latest schema of a subject, or ErrUnknownSchema, without a
// grace. It asks each time.
func (c *Client) Latest(ctx context.Context, subject string) (*Schema, error) {
	name := fmt.Sprintf("the latest schema of subject %q", subject)
	var got wireSchema
	var err error
	if c.c.Dir != "" {
		got, err = c.file(subject, name)
	} else {
		err = c.ask(ctx, request{what: name, path: "/subjects/" + url.PathEscape(subject) + "/versions/latest"}, &got)
	}
	if err != nil {
		return nil, err
	}
	return c.resolve(ctx, got, &walk{})
}

// Register gives subject a schema, unless it has it already, and returns its id.
// References are named by subject and version.
func (c *Client) Register(ctx context.Context, subject string, s *Schema) (int32, error) {
	return c.post(ctx, subject, s, false)
}

// Find returns the id that a schema has under subject, and ErrUnknownSchema when it
// has none. It changes nothing.
func (c *Client) Find(ctx context.Context, subject string, s *Schema) (int32, error) {
	return c.post(ctx, subject, s, true)
}

func (c *Client) post(ctx context.Context, subject string, s *Schema, lookup bool) (int32, error) {
	got, err := once(ctx, c, c.registered, registration{subject, s.Type, s.Text, lookup}, func() (*Schema, error) {
		if c.c.Dir != "" {
			return c.find(subject, s)
		}
		body := wireSchema{Type: s.Type, Text: s.Text}
		for _, r := range s.References {
			body.References = append(body.References, wireReference{r.Name, r.Subject, r.Version})
		}
		data, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("schema of subject %q: %w", subject, err)
		}
		r := request{what: fmt.Sprintf("an id for the schema of subject %q", subject),
			path: "/subjects/" + url.PathEscape(subject), body: data}
		if !lookup {
			r.path += "/versions"
		}
		var got wireSchema
		if err := c.ask(ctx, r, &got); err != nil {
			return nil, err
		}
		if got.ID == 0 {
			return nil, fmt.Errorf("%s: an answer without one", r.what)
		}
		return &Schema{ID: got.ID}, nil
	})
	if err != nil {
		return 0, err
	}
	return got.ID, nil
}

// wireSchema is how schemas are written in questions and answers.
type wireSchema struct {
	ID         int32           `json:"id,omitempty"`
	Type       Type            `json:"schemaType,omitempty"`
	Text       string          `json:"schema"`
	References []wireReference `json:"references,omitempty"`
}

type wireReference struct {
	Name    string `json:"name"`
	Subject string `json:"subject"`
	Version int    `json:"version"`
}

// A walk bounds what one schema may pull in.
type walk struct {
	depth, total int
}

// resolve asks for what a schema refers to.
func (c *Client) resolve(ctx context.Context, w wireSchema, at *walk) (*Schema, error) {
	s := &Schema{ID: w.ID, Type: w.Type, Text: w.Text}
	if s.Type == "" {
		s.Type = Avro
	}
	at.depth++
	defer func() { at.depth-- }()
	for _, r := range w.References {
		if at.total++; at.total > maxReferences || at.depth > maxDepth {
			return nil, fmt.Errorf("schema %d refers to more than %d others, or deeper than %d", w.ID, maxReferences, maxDepth)
		}
		below, err := c.reference(ctx, r, at)
		if err != nil {
			return nil, fmt.Errorf("reference %q: %w", r.Name, err)
		}
		s.References = append(s.References, Reference{r.Name, r.Subject, r.Version, below})
	}
	return s, nil
}

// reference returns a version of a subject, which may be deleted already.
func (c *Client) reference(ctx context.Context, r wireReference, at *walk) (*Schema, error) {
	name := fmt.Sprintf("version %d of subject %q", r.Version, r.Subject)
	if c.c.Dir != "" {
		got, err := c.file(r.Subject, name)
		if err != nil {
			return nil, err
		}
		return c.resolve(ctx, got, at)
	}
	c.mu.Lock()
	known := c.versions[version{r.Subject, r.Version}]
	c.mu.Unlock()
	if known != nil {
		return known, nil
	}
	var got wireSchema
	path := "/subjects/" + url.PathEscape(r.Subject) + "/versions/" + strconv.Itoa(r.Version) + "?deleted=true"
	if err := c.ask(ctx, request{what: name, path: path, grace: c.c.Grace}, &got); err != nil {
		return nil, err
	}
	s, err := c.resolve(ctx, got, at)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	c.versions[version{r.Subject, r.Version}] = s
	c.mu.Unlock()
	return s, nil
}
