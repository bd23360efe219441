package kafka_test

import (
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/avro"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/elbo-stream/elbo/pipeline/codec/registry"
	"github.com/elbo-stream/elbo/pipeline/codec/registry/registrytest"
)

// evolving writes rows under several schemas of one subject.
type evolving struct {
	t    *testing.T
	reg  *registrytest.Registry
	recs []*kgo.Record
}

// add writes n rows under a schema of fields, and returns its id.
func (e *evolving) add(n int, fields string, row func(id int) map[string]any) int32 {
	e.t.Helper()
	text := `{"type":"record","name":"Row","fields":[` + fields + `]}`
	schema, err := avro.Parse(text)
	if err != nil {
		e.t.Fatal(err)
	}
	id := e.reg.Add("in-value", registry.Schema{Type: registry.Avro, Text: text})
	for range n {
		b, err := schema.Encode(row(len(e.recs)))
		if err != nil {
			e.t.Fatal(err)
		}
		e.recs = append(e.recs, &kgo.Record{Topic: "in", Key: fmt.Append(nil, len(e.recs)), Value: framed(id, b...)})
	}
	return id
}

// run runs elbo over what was written, until its end.
func (e *evolving) run(brokers []string, url string) (string, error) {
	e.t.Helper()
	send(e.t, brokers, e.recs)
	value := "format: avro, require: [x], columns: [id int64, x float64], registry: {urls: ['" + url + "']}"
	file := filepath.Join(e.t.TempDir(), "elbo.yaml")
	if err := os.WriteFile(file, fmt.Appendf(nil, formatConfig, strings.Join(brokers, ", "), value, "json", ""), 0o666); err != nil {
		e.t.Fatal(err)
	}
	text, err := exec.Command(program(e.t), "run", "--until-end", file).CombinedOutput()
	return string(text), err
}

const idField, xField = `{"name":"id","type":"long"}`, `{"name":"x","type":"double"}`

func idAndX(id int) map[string]any { return map[string]any{"id": int64(id), "x": xOf(id)} }

// TestRegistryComesLate is F19: while the registry is down, and while it does not
// know a schema that is new, messages wait; none is a dead letter.
func TestRegistryComesLate(t *testing.T) {
	reg := registrytest.New()
	web := httptest.NewServer(reg)
	defer web.Close()
	_, brokers := start(t)
	e := &evolving{t: t, reg: reg}
	e.add(500, idField+","+xField, idAndX)
	id := e.add(500, xField+","+idField, idAndX)
	reg.Hide(id, true)
	reg.Refuse(503, 50301, "starting")
	up := time.AfterFunc(3*time.Second, func() {
		reg.Refuse(0, 0, "")
		time.AfterFunc(2*time.Second, func() { reg.Hide(id, false) })
	})
	defer up.Stop()
	if text, err := e.run(brokers, web.URL); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	checkRows(t, reg, brokers, format{rows: 1}, "json", 1000, 0)
	if n := len(output(t, brokers, "dead", 0)); n != 0 {
		t.Errorf("%d dead letters", n)
	}
}

// TestSchemasChange: fields that come, go and move do not stop a run; the loss of one
// that is needed does, with both schemas named.
func TestSchemasChange(t *testing.T) {
	reg := registrytest.New()
	web := httptest.NewServer(reg)
	defer web.Close()
	_, brokers := start(t)
	e := &evolving{t: t, reg: reg}
	e.add(300, idField+","+xField+`,{"name":"old","type":"string"}`, func(id int) map[string]any {
		return map[string]any{"id": int64(id), "x": xOf(id), "old": "o"}
	})
	e.add(300, xField+","+idField, idAndX)
	e.add(400, `{"name":"new","type":["null",{"type":"array","items":"int"}]},{"name":"x","type":"float"},{"name":"id","type":"int"}`, func(id int) map[string]any {
		return map[string]any{"id": int32(id), "x": float32(xOf(id)), "new": []int32{1, 2}}
	})
	if text, err := e.run(brokers, web.URL); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	checkRows(t, reg, brokers, format{rows: 1}, "json", 1000, 0)

	lost := &evolving{t: t, reg: reg}
	id := lost.add(10, idField, func(id int) map[string]any { return map[string]any{"id": int64(id)} })
	text, err := lost.run(brokers, web.URL)
	if err == nil || !strings.Contains(text, `"x"`) || !strings.Contains(text, fmt.Sprint("schema ", id)) {
		t.Errorf("a run without its column ended with %v: %s", err, text)
	}
}
