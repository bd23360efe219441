package registry_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"encoding/pem"

	"go.uber.org/goleak"

	"github.com/elbo-stream/elbo/pipeline/codec/registry"
	"github.com/elbo-stream/elbo/pipeline/codec/registry/registrytest"
)

const text = `{"type":"record","name":"A","fields":[{"name":"x","type":"int"}]}`

// client returns one that asks r without a network, and r with one schema.
func client(t *testing.T, r *registrytest.Registry, change func(*registry.Config)) *registry.Client {
	t.Helper()
	c := registry.Config{URLs: []string{"http://one", "http://two/"}, Transport: r}
	if change != nil {
		change(&c)
	}
	got, err := registry.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(got.Close)
	return got
}

func TestSchema(t *testing.T) {
	r := registrytest.New()
	base := r.Add("base", registry.Schema{Text: `{"type":"enum","name":"E","symbols":["A"]}`})
	mid := r.Add("mid", registry.Schema{Text: "mid", References: []registry.Reference{{Name: "E", Subject: "base", Version: 1}}})
	top := r.Add("top/value", registry.Schema{Type: registry.Protobuf, Text: "top", References: []registry.Reference{
		{Name: "m", Subject: "mid", Version: 1}, {Name: "E", Subject: "base", Version: 1}}})
	c := client(t, r, nil)
	s, err := c.Schema(t.Context(), top)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, i := range s.Imports() {
		names = append(names, i.Name+"="+i.Schema.Text[:1])
	}
	if s.ID != top || s.Type != registry.Protobuf || s.Text != "top" || fmt.Sprint(names) != "[E={ m=m]" {
		t.Errorf("schema %d: %+v, imports %v", top, s, names)
	}
	if s, err := c.Schema(t.Context(), base); err != nil || s.Type != registry.Avro {
		t.Errorf("schema %d: %+v, %v", base, s, err)
	}
	if s, err := c.Latest(t.Context(), "top/value"); err != nil || s.ID != top || len(s.References) != 2 {
		t.Errorf("latest: %+v, %v", s, err)
	}
	for range 3 {
		if _, err := c.Schema(t.Context(), mid); err != nil {
			t.Error(err)
		}
	}
	if n := r.Asked(fmt.Sprintf("GET /schemas/ids/%d", mid)); n != 1 {
		t.Errorf("asked %d times, want once", n)
	}
	if n := r.Asked("GET /subjects/base/versions/1"); n != 1 {
		t.Errorf("a reference was asked for %d times, want once", n)
	}
}

func TestOneRequestAtATime(t *testing.T) {
	defer goleak.VerifyNone(t)
	synctest.Test(t, func(t *testing.T) {
		r := registrytest.New()
		id := r.Add("s", registry.Schema{Text: text})
		r.Refuse(-1, 0, "")
		c := client(t, r, nil)
		// The one who asks gives up; the others go on.
		first, giveUp := context.WithCancel(t.Context())
		var all sync.WaitGroup
		all.Go(func() {
			if _, err := c.Schema(first, id); !errors.Is(err, context.Canceled) {
				t.Errorf("error %v, want that the context was cancelled", err)
			}
		})
		synctest.Wait()
		for range 8 {
			all.Go(func() {
				if s, err := c.Schema(t.Context(), id); err != nil || s.Text != text {
					t.Errorf("%v, %v", s, err)
				}
			})
		}
		time.Sleep(time.Minute)
		giveUp()
		synctest.Wait()
		before := r.Asked("GET /schemas/ids/1")
		r.Refuse(0, 0, "")
		all.Wait()
		if n := r.Asked("GET /schemas/ids/1") - before; n > 2 {
			t.Errorf("asked %d times, want one at a time", n)
		}
	})
}

// TestWaits is F19: what may pass is waited for, with a word about it.
func TestWaits(t *testing.T) {
	for _, status := range []int{-1, 500, 502, 503, 429, 408} {
		t.Run(fmt.Sprint("status ", status), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := registrytest.New()
				id := r.Add("s", registry.Schema{Text: text})
				r.Refuse(status, 50001, "busy")
				var waits []registry.Wait
				var log strings.Builder
				c := client(t, r, func(c *registry.Config) {
					c.Waiting = func(w registry.Wait) { waits = append(waits, w) }
					c.Log = slog.New(slog.NewTextHandler(&log, nil))
				})
				time.AfterFunc(10*time.Minute, func() { r.Refuse(0, 0, "") })
				begin := time.Now()
				if _, err := c.Schema(t.Context(), id); err != nil {
					t.Fatal(err)
				}
				if d := time.Since(begin); d < 10*time.Minute || d > 10*time.Minute+10*time.Second {
					t.Errorf("waited %v, want 10 minutes", d)
				}
				if n := r.Asked("GET /schemas/ids/1"); n < 60 || n > 150 {
					t.Errorf("asked %d times in 10 minutes", n)
				}
				if len(waits) < 9 || len(waits) > 11 || waits[0].How < 5*time.Second || waits[0].How > 12*time.Second || waits[0].For != "schema 1" {
					t.Errorf("told of %d waits: %+v", len(waits), waits)
				}
				if !strings.Contains(log.String(), "waiting for the schema registry") {
					t.Errorf("the log says %q", log.String())
				}
			})
		})
	}
}

func TestUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := registrytest.New()
		id := r.Add("s", registry.Schema{Text: text})
		c := client(t, r, nil)
		ask := func() (time.Duration, error) {
			begin := time.Now()
			_, err := c.Schema(t.Context(), id)
			return time.Since(begin), err
		}
		r.Hide(id, true)
		time.AfterFunc(3*time.Second, func() { r.Hide(id, false) })
		if d, err := ask(); err != nil || d < 3*time.Second {
			t.Errorf("known after 3 s: %v after %v", err, d)
		}
		id = r.Add("s", registry.Schema{Text: "other"})
		r.Hide(id, true)
		if d, err := ask(); !errors.Is(err, registry.ErrUnknownSchema) || d < 5*time.Second || d > 12*time.Second {
			t.Errorf("unknown: %v after %v", err, d)
		}
		if d, err := ask(); !errors.Is(err, registry.ErrUnknownSchema) || d != 0 {
			t.Errorf("unknown, again: %v after %v", err, d)
		}
		time.Sleep(2 * time.Minute)
		r.Hide(id, false)
		if _, err := ask(); err != nil {
			t.Errorf("known two minutes later: %v", err)
		}
	})
}

// TestGarbage: when every message names another id, most are not waited for.
func TestGarbage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := registrytest.New()
		c := client(t, r, nil)
		begin := time.Now()
		for id := range int32(1000) {
			if _, err := c.Schema(t.Context(), 1000+id); !errors.Is(err, registry.ErrUnknownSchema) {
				t.Fatalf("schema %d: %v", 1000+id, err)
			}
		}
		if d := time.Since(begin); d < 15*time.Second || d > 20*time.Second {
			t.Errorf("1,000 unknown schemas took %v, want three times a grace of 5 s", d)
		}
		time.Sleep(2 * time.Minute)
		id := r.Add("s", registry.Schema{Text: text})
		r.Hide(id, true)
		time.AfterFunc(3*time.Second, func() { r.Hide(id, false) })
		if _, err := c.Schema(t.Context(), id); err != nil {
			t.Errorf("known after 3 s: %v", err)
		}
	})
}

func TestEndsOnContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := registrytest.New()
		r.Refuse(503, 50301, "")
		c := client(t, r, nil)
		ctx, cancel := context.WithTimeout(t.Context(), 7*time.Second)
		defer cancel()
		_, err := c.Schema(ctx, 1)
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "schema 1") {
			t.Errorf("error %v", err)
		}
	})
}

func TestFinal(t *testing.T) {
	for _, tt := range []struct {
		status, code int
		message      string
		want         []string
		access       bool
	}{
		{401, 40101, "who?", []string{"401 Unauthorized", "who?", "check user and password"}, true},
		{403, 40301, "", []string{"403 Forbidden", "right"}, true},
		{404, 0, "", []string{"is no schema registry", "check the path"}, false},
		{409, 409, "reader lacks x", []string{"not compatible", "reader lacks x", "compatibility"}, false},
		{422, 42201, "bad", []string{"422", "bad"}, false},
		{418, 0, strings.Repeat("é", 1000), []string{"418", "..."}, false},
	} {
		t.Run(fmt.Sprint("status ", tt.status), func(t *testing.T) {
			r := registrytest.New()
			r.Refuse(tt.status, tt.code, tt.message)
			_, err := client(t, r, nil).Register(t.Context(), "s", &registry.Schema{Text: text})
			var access *registry.AccessError
			if err == nil || errors.As(err, &access) != tt.access || len(err.Error()) > 700 {
				t.Fatalf("error %v", err)
			}
			for _, w := range tt.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("error %q lacks %q", err, w)
				}
			}
		})
	}
}

func TestBounds(t *testing.T) {
	r := registrytest.New()
	id := r.Add("s", registry.Schema{Text: strings.Repeat("x", 1000)})
	c := client(t, r, func(c *registry.Config) { c.MaxBytes = 500 })
	if _, err := c.Schema(t.Context(), id); err == nil || !strings.Contains(err.Error(), "more than 500 bytes") {
		t.Errorf("error %v", err)
	}
	// A reference to itself ends.
	r.Add("loop", registry.Schema{Text: "loop", References: []registry.Reference{{Name: "loop", Subject: "loop", Version: 1}}})
	if _, err := client(t, r, nil).Latest(t.Context(), "loop"); err == nil || !strings.Contains(err.Error(), "refers to more") {
		t.Errorf("error %v", err)
	}
}

func TestRegister(t *testing.T) {
	r := registrytest.New()
	c := client(t, r, nil)
	s := &registry.Schema{Type: registry.Avro, Text: text}
	if _, err := c.Find(t.Context(), "s-value", s); !errors.Is(err, registry.ErrUnknownSchema) {
		t.Errorf("Find before: %v", err)
	}
	var ids []int32
	for range 3 {
		id, err := c.Register(t.Context(), "s-value", s)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	if fmt.Sprint(ids) != "[1 1 1]" || r.Asked("POST /subjects/s-value/versions") != 1 {
		t.Errorf("ids %v, asked %d times", ids, r.Asked("POST /subjects/s-value/versions"))
	}
	fresh := client(t, r, nil)
	if id, err := fresh.Find(t.Context(), "s-value", s); err != nil || id != 1 {
		t.Errorf("Find: %d, %v", id, err)
	}
}

func TestLogin(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "secret")
	if err := os.WriteFile(file, []byte("hunter2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("ELBO_TEST_REGISTRY_SECRET", "hunter2")
	for name, change := range map[string]func(*registry.Config){
		"password":      func(c *registry.Config) { c.User, c.Password = "elbo", registry.NewSecret("hunter2") },
		"password file": func(c *registry.Config) { c.User, c.PasswordFile = "elbo", file },
		"password env":  func(c *registry.Config) { c.User, c.PasswordEnv = "elbo", "ELBO_TEST_REGISTRY_SECRET" },
		"token":         func(c *registry.Config) { c.Token = registry.NewSecret("hunter2") },
		"token file":    func(c *registry.Config) { c.TokenFile = file },
		"token env":     func(c *registry.Config) { c.TokenEnv = "ELBO_TEST_REGISTRY_SECRET" },
		"none":          nil,
	} {
		t.Run(name, func(t *testing.T) {
			r := registrytest.New()
			id := r.Add("s", registry.Schema{Text: text})
			if strings.HasPrefix(name, "token") {
				r.Login("", "", "hunter2")
			} else {
				r.Login("elbo", "hunter2", "")
			}
			c := client(t, r, change)
			_, err := c.Schema(t.Context(), id)
			var access *registry.AccessError
			if (err == nil) == (name == "none") || name == "none" && !errors.As(err, &access) {
				t.Errorf("error %v", err)
			}
		})
	}
	r := registrytest.New()
	c := client(t, r, func(c *registry.Config) { c.TokenFile = filepath.Join(dir, "none") })
	if _, err := c.Schema(t.Context(), 1); err == nil || !strings.Contains(err.Error(), "token_file") {
		t.Errorf("error %v", err)
	}
	s := registry.NewSecret("hunter2")
	if got := fmt.Sprintf("%v %+v %#v %s %q", s, struct{ S registry.Secret }{s}, s, s, s); strings.Contains(got, "hunter2") {
		t.Errorf("a secret is shown: %s", got)
	}
}

func TestConfig(t *testing.T) {
	for name, tt := range map[string]struct {
		c    registry.Config
		want string
	}{
		"nothing":        {registry.Config{}, "url: must be set, or dir"},
		"no scheme":      {registry.Config{URLs: []string{"localhost:8081"}}, "is no address"},
		"login in url":   {registry.Config{URLs: []string{"http://u:hunter2@host"}}, "holds a login"},
		"no host":        {registry.Config{URLs: []string{"http://u:hunter2@"}}, "is no address"},
		"bad url":        {registry.Config{URLs: []string{"http://u:hunter2@ho st"}}, "is no address"},
		"two passwords":  {registry.Config{URLs: []string{"http://a"}, User: "u", PasswordEnv: "A", PasswordFile: "b"}, "more than one place"},
		"token and user": {registry.Config{URLs: []string{"http://a"}, User: "u", TokenEnv: "A"}, "choose one"},
		"no user":        {registry.Config{URLs: []string{"http://a"}, PasswordEnv: "A"}, "user: must be set"},
		"no password":    {registry.Config{URLs: []string{"http://a"}, User: "A"}, "password: must be set"},
		"cert, no key":   {registry.Config{URLs: []string{"http://a"}, CertFile: "A"}, "key_file"},
		"no ca":          {registry.Config{URLs: []string{"https://a"}, CAFile: "/does/not/exist"}, "ca_file"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := registry.New(tt.c)
			if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
}

func TestTLS(t *testing.T) {
	r := registrytest.New()
	id := r.Add("s", registry.Schema{Text: text})
	server := httptest.NewTLSServer(r)
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)
	defer server.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(ca, block, 0o600); err != nil {
		t.Fatal(err)
	}
	ask := func(c registry.Config) error {
		client, err := registry.New(c)
		if err != nil {
			return err
		}
		defer client.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		_, err = client.Schema(ctx, id)
		return err
	}
	if err := ask(registry.Config{URLs: []string{server.URL}, CAFile: ca}); err != nil {
		t.Errorf("with its authority: %v", err)
	}
	if err := ask(registry.Config{URLs: []string{server.URL}}); err == nil || !strings.Contains(err.Error(), "set ca_file") {
		t.Errorf("without its authority: %v", err)
	}
	if err := ask(registry.Config{URLs: []string{server.URL}, CAFile: ca, ServerName: "other"}); err == nil || !strings.Contains(err.Error(), "server_name") {
		t.Errorf("with another name: %v", err)
	}
	plain := httptest.NewServer(r)
	defer plain.Close()
	if err := ask(registry.Config{URLs: []string{strings.Replace(plain.URL, "http", "https", 1)}}); err == nil || !strings.Contains(err.Error(), "does not speak TLS") {
		t.Errorf("plain HTTP: %v", err)
	}
	if err := ask(registry.Config{URLs: []string{plain.URL}}); err != nil {
		t.Errorf("plain HTTP: %v", err)
	}
	notRegistry := httptest.NewServer(http.NotFoundHandler())
	defer notRegistry.Close()
	if err := ask(registry.Config{URLs: []string{notRegistry.URL}}); err == nil || errors.Is(err, registry.ErrUnknownSchema) {
		t.Errorf("another server: %v", err)
	}
}

func TestDir(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{
		"17.avsc":            text,
		"pay-value.avsc":     `"int"`,
		"18.avsc":            `["E"]`,
		"18.references.json": `[{"name":"E","subject":"e","version":1}]`,
		"e.avsc":             `{"type":"enum","name":"E","symbols":["A"]}`,
		"19.proto":           "syntax = \"proto3\";\nimport \"sub/b.proto\";\nimport public 'google/protobuf/timestamp.proto';\n",
		"sub/b.proto":        "syntax = \"proto3\";",
		"20.json":            "{}",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c, err := registry.New(registry.Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	for id, want := range map[int32]string{17: "AVRO []", 18: "AVRO [E]", 19: "PROTOBUF [sub/b.proto]", 20: "JSON []"} {
		s, err := c.Schema(t.Context(), id)
		if err != nil {
			t.Errorf("schema %d: %v", id, err)
			continue
		}
		names := []string{}
		for _, i := range s.Imports() {
			names = append(names, i.Name)
		}
		if got := fmt.Sprint(s.Type, " ", names); got != want || s.ID != id {
			t.Errorf("schema %d: %s, want %s", id, got, want)
		}
	}
	if s, err := c.Latest(t.Context(), "pay-value"); err != nil || s.Text != `"int"` {
		t.Errorf("latest: %v, %v", s, err)
	}
	if _, err := c.Schema(t.Context(), 4); !errors.Is(err, registry.ErrUnknownSchema) {
		t.Errorf("unknown: %v", err)
	}
	if _, err := c.Latest(t.Context(), "../"+filepath.Base(dir)+"/17"); err == nil {
		t.Error("a subject leads out of the folder")
	}
	if id, err := c.Register(t.Context(), "x-value", &registry.Schema{Type: registry.Avro, Text: text + "\n"}); err != nil || id != 17 {
		t.Errorf("Register: %d, %v", id, err)
	}
	if _, err := c.Register(t.Context(), "x-value", &registry.Schema{Type: registry.Avro, Text: `"long"`}); err == nil || !strings.Contains(err.Error(), "ID.avsc") {
		t.Errorf("Register: %v", err)
	}
}
