// Package registrytest is a schema registry in memory, for tests.
//
//	r := registrytest.New()
//	id := r.Add("payments-value", registry.Schema{Text: text})
//	c, err := registry.New(registry.Config{URLs: []string{"http://registry"}, Transport: r})
//
// It is an http.Handler, for httptest, and an http.RoundTripper, which needs no
// network and so goes with testing/synctest. It knows versions, references and
// deletes nothing; it checks no compatibility unless it is told to refuse.
package registrytest

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"

	"github.com/elbo-stream/elbo/pipeline/codec/registry"
)

// Registry is a schema registry. It is safe for concurrent use.
type Registry struct {
	mu       sync.Mutex
	schemas  []wire // id 1 is the first
	subjects map[string][]int
	hidden   map[int]bool
	asked    map[string]int
	fault    func(*http.Request) *http.Response
	err      error
	user     string
	password string
	token    string
}

type wire struct {
	ID         int         `json:"id,omitempty"`
	Subject    string      `json:"subject,omitempty"`
	Version    int         `json:"version,omitempty"`
	Type       string      `json:"schemaType,omitempty"`
	Text       string      `json:"schema,omitempty"`
	References []reference `json:"references,omitempty"`
}

type reference struct {
	Name    string `json:"name"`
	Subject string `json:"subject"`
	Version int    `json:"version"`
}

// New returns an empty registry that is up.
func New() *Registry {
	return &Registry{subjects: map[string][]int{}, hidden: map[int]bool{}, asked: map[string]int{}}
}

// Add makes s the latest version of a subject and returns its id, that of an equal
// schema if there is one.
func (r *Registry) Add(subject string, s registry.Schema) int32 {
	r.mu.Lock()
	defer r.mu.Unlock()
	w := wire{Type: string(s.Type), Text: s.Text}
	for _, x := range s.References {
		w.References = append(w.References, reference{x.Name, x.Subject, x.Version})
	}
	return int32(r.add(subject, w))
}

func (r *Registry) add(subject string, w wire) int {
	id := r.id(w)
	if id == 0 {
		r.schemas = append(r.schemas, w)
		id = len(r.schemas)
	}
	if r.version(subject, id) == 0 {
		r.subjects[subject] = append(r.subjects[subject], id)
	}
	return id
}

// id returns that of an equal schema, or 0.
func (r *Registry) id(w wire) int {
	for i, s := range r.schemas {
		if s.Text == w.Text && kind(s) == kind(w) {
			return i + 1
		}
	}
	return 0
}

func kind(w wire) string {
	if w.Type == "" {
		return "AVRO"
	}
	return w.Type
}

// version returns which version of a subject has an id, or 0.
func (r *Registry) version(subject string, id int) int {
	for i, v := range r.subjects[subject] {
		if v == id {
			return i + 1
		}
	}
	return 0
}

// Hide makes an id unknown, or known again.
func (r *Registry) Hide(id int32, hidden bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hidden[int(id)] = hidden
}

// Refuse answers every request with a status; 0 ends that. Status -1 is a registry
// that cannot be reached.
func (r *Registry) Refuse(status int, code int, message string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fault, r.err = nil, nil
	switch {
	case status < 0:
		r.err = errors.New("connection refused")
	case status > 0:
		r.fault = func(*http.Request) *http.Response {
			w := httptest.NewRecorder()
			fail(w, status, code, message)
			return w.Result()
		}
	}
}

// Login lets in only who has this user and password, or this token.
func (r *Registry) Login(user, password, token string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.user, r.password, r.token = user, password, token
}

// Asked returns how often a path was asked for, such as "GET /schemas/ids/1".
func (r *Registry) Asked(path string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.asked[path]
}

// RoundTrip answers without a network.
func (r *Registry) RoundTrip(req *http.Request) (*http.Response, error) {
	if err := req.Context().Err(); err != nil {
		return nil, err
	}
	r.mu.Lock()
	err, fault := r.err, r.fault
	if err != nil || fault != nil {
		r.asked[req.Method+" "+req.URL.Path]++
	}
	r.mu.Unlock()
	switch {
	case err != nil:
		return nil, err
	case fault != nil:
		return fault(req), nil
	}
	w := httptest.NewRecorder()
	r.ServeHTTP(w, req)
	return w.Result(), nil
}

// ServeHTTP answers as a registry does.
func (r *Registry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked[req.Method+" "+req.URL.Path]++
	if !r.lets(req) {
		fail(w, http.StatusUnauthorized, 401, "Unauthorized")
		return
	}
	var in wire
	if req.Method == http.MethodPost && json.NewDecoder(req.Body).Decode(&in) != nil {
		fail(w, http.StatusUnprocessableEntity, 42201, "Invalid schema")
		return
	}
	parts := strings.Split(strings.Trim(req.URL.EscapedPath(), "/"), "/")
	for i := range parts {
		parts[i], _ = url.PathUnescape(parts[i])
	}
	switch {
	case req.Method == http.MethodGet && len(parts) == 3 && parts[0] == "schemas" && parts[1] == "ids":
		id, _ := strconv.Atoi(parts[2])
		if id < 1 || id > len(r.schemas) || r.hidden[id] {
			fail(w, http.StatusNotFound, 40403, "Schema not found")
			return
		}
		answer(w, r.schemas[id-1])
	case req.Method == http.MethodGet && len(parts) == 4 && parts[0] == "subjects" && parts[2] == "versions":
		r.serveVersion(w, parts[1], parts[3])
	case req.Method == http.MethodPost && len(parts) == 3 && parts[0] == "subjects" && parts[2] == "versions":
		answer(w, wire{ID: r.add(parts[1], in)})
	case req.Method == http.MethodPost && len(parts) == 2 && parts[0] == "subjects":
		id := r.id(in)
		if r.version(parts[1], id) == 0 {
			fail(w, http.StatusNotFound, 40403, "Schema not found")
			return
		}
		in.ID, in.Subject, in.Version = id, parts[1], r.version(parts[1], id)
		answer(w, in)
	default:
		http.NotFound(w, req)
	}
}

func (r *Registry) serveVersion(w http.ResponseWriter, subject, version string) {
	ids := r.subjects[subject]
	v, _ := strconv.Atoi(version)
	if version == "latest" {
		v = len(ids)
	}
	switch {
	case len(ids) == 0:
		fail(w, http.StatusNotFound, 40401, "Subject '"+subject+"' not found.")
	case v < 1 || v > len(ids):
		fail(w, http.StatusNotFound, 40402, "Version "+version+" not found.")
	default:
		s := r.schemas[ids[v-1]-1]
		s.ID, s.Subject, s.Version = ids[v-1], subject, v
		answer(w, s)
	}
}

func (r *Registry) lets(req *http.Request) bool {
	if r.token != "" {
		return req.Header.Get("Authorization") == "Bearer "+r.token
	}
	user, password, _ := req.BasicAuth()
	return r.user == "" || user == r.user && password == r.password
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/vnd.schemaregistry.v1+json")
	_ = json.NewEncoder(w).Encode(v) // the client sees that it is cut
}

func fail(w http.ResponseWriter, status, code int, message string) {
	w.Header().Set("Content-Type", "application/vnd.schemaregistry.v1+json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"error_code": code, "message": message})
}
