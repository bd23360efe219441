package config_test

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/elbo-stream/elbo/pipeline"
	"github.com/elbo-stream/elbo/pipeline/config"
)

func parse(t *testing.T, text string) *config.Pipeline {
	t.Helper()
	var closed int
	p, faults := config.Parse("elbo.yaml", []byte(text), registry(&closed), options())
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	return p
}

// goodFiles returns the files of testdata/good.
func goodFiles(t *testing.T) map[string]string {
	t.Helper()
	files, err := filepath.Glob("testdata/good/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no good files (%v)", err)
	}
	all := map[string]string{}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		all[file] = string(data)
	}
	return all
}

func TestRegistryIsSound(t *testing.T) {
	var closed int
	if err := registry(&closed).Check(); err != nil {
		t.Error(err)
	}
}

func TestCheckFindsTheProgramsMistakes(t *testing.T) {
	type self struct {
		Next []self `yaml:"next" doc:"More."`
	}
	type bad struct {
		Undocumented string         `yaml:"undocumented"`
		Default      int            `yaml:"default" default:"many" doc:"A number."`
		Func         func()         `yaml:"func" doc:"No value."`
		Keys         map[int]string `yaml:"keys" doc:"Wrong keys."`
	}
	none := func(context.Context, config.Env, bad) (pipeline.Source, error) { return nil, nil }
	loop := func(context.Context, config.Env, self) (pipeline.Source, error) { return nil, nil }
	word := func(context.Context, config.Env, string) (pipeline.Source, error) { return nil, nil }
	err := config.Registry{Sources: []config.Kind[pipeline.Source]{
		config.SourceKind("bad", "", none), config.SourceKind("bad", "", loop), config.SourceKind("word", "", word), {Name: "empty"},
	}}.Check()
	for _, want := range []string{
		"source.bad.undocumented: has no doc tag",
		"source.bad: default: is not a whole number",
		`source.bad.func: a file cannot hold a func(); hide the field with yaml:"-"`,
		"source.bad.keys: the keys of map[int]string are no strings",
		"source.bad: the name is taken",
		"the type contains itself",
		"source.word: Config returns *string, which is no pointer to a struct",
		"source.empty: Config and Build must be set",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Check() = %v\nlacks %q", err, want)
		}
	}
}

func TestValues(t *testing.T) {
	p := parse(t, goodFiles(t)["testdata/good/full.yaml"])
	http := p.Source.Config.(*httpSource)
	for _, c := range []struct {
		name      string
		got, want any
	}{
		{"default of a variable", http.URL, "http://localhost:8080/rows"},
		{"secret from a file", http.Password.Reveal(), "file-hunter2"},
		{"variable inside a text", http.Headers["Authorization"], "Bearer env-hunter2"},
		{"escaped variable", http.Headers["Price"], "${not a variable}"},
		{"pointer to a struct", http.TLS.CA, "ca.pem"},
		{"default below a pointer", http.TLS.MinVersion, "1.3"},
		{"small number", http.Retries, uint8(5)},
		{"duration", http.Timeout, 90 * time.Second},
		{"structs in a list", http.Servers, []server{{"a", 1}, {"b", 3}}},
		{"words that look like others", p.Operators[0].Config.(*selectConfig).Columns, []string{"amount", "tax", "1", "true"}},
		{"enum", p.Operators[2].Config.(*scoreConfig).Explain, "all"},
		{"default", p.Operators[2].Config.(*scoreConfig).Top, 5},
		{"number", p.Operators[3].Config.(*thresholdConfig).TargetRate, 1e-4},
		{"variable with more text", p.Sinks[0].Config.(*parquetSink).Path, "scores/all/"},
		{"size", p.Sinks[0].Config.(*parquetSink).Roll.Size, config.ByteSize(1 << 30)},
		{"days", p.Sinks[0].Config.(*parquetSink).Roll.Age, 24 * time.Hour},
		{"size as int64", p.Sinks[0].Config.(*parquetSink).Page, int64(100000)},
		{"default size as int64", p.Sinks[1].Config.(*parquetSink).Page, int64(64 << 10)},
		{"default size", p.Sinks[1].Config.(*parquetSink).Roll.Size, config.ByteSize(128 << 20)},
		{"name of an operator", p.Operators[2].Name, "scorer"},
		{"names of sinks", []string{p.Sinks[0].Name, p.Sinks[1].Name, p.Sinks[2].Name}, []string{"parquet", "anomalies", "parquet-2"}},
		{"whole settings", p.Settings, config.Settings{
			Delivery: "effectively_once", OnError: "dead_letter", Workers: 4, MaxBatches: 1000, MaxBytes: 64e6,
			CommitBatches: 100, CommitInterval: 500 * time.Millisecond,
			DeadLetterLimit: config.DeadLetterLimit{InRow: -1, Share: 0.05},
		}},
	} {
		if !reflect.DeepEqual(c.got, c.want) {
			t.Errorf("%s: got %#v, want %#v", c.name, c.got, c.want)
		}
	}
}

func TestBuildGivesTheEnginesConfig(t *testing.T) {
	p := parse(t, goodFiles(t)["testdata/good/full.yaml"])
	c, faults := p.Build(context.Background(), config.Env{})
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	if c.Source == nil || len(c.Operators) != 4 || len(c.Sinks) != 3 || c.DeadLetters == nil || c.OnError != pipeline.DeadLetter {
		t.Errorf("got %+v", c)
	}
	if c.Workers != 4 || c.MaxBatches != 1000 || c.MaxBytes != 64e6 || c.CommitBatches != 100 || c.CommitInterval != 500*time.Millisecond {
		t.Errorf("settings: got %+v", c)
	}
	if want := (pipeline.DeadLetterLimit{InRow: -1, Share: 0.05}); c.DeadLetterLimit != want {
		t.Errorf("limit = %+v, want %+v", c.DeadLetterLimit, want)
	}
	if c.Operators[2].Name != "scorer" || c.Sinks[1].Name != "anomalies" {
		t.Errorf("names: %q, %q", c.Operators[2].Name, c.Sinks[1].Name)
	}
}

func TestEffective(t *testing.T) {
	for file, text := range goodFiles(t) {
		p := parse(t, text)
		out := p.Effective()
		if bytes.Contains(out, []byte("hunter2")) {
			t.Errorf("%s: a secret is printed:\n%s", file, out)
		}
		golden(t, strings.TrimSuffix(file, ".yaml")+".effective", out)
		again := parse(t, string(out))
		if more := again.Effective(); !bytes.Equal(out, more) {
			t.Errorf("%s: the effective config read again is\n%s\nwant\n%s", file, more, out)
		}
	}
}

func TestSecretIsNeverPrinted(t *testing.T) {
	s := config.NewSecret("hunter2")
	type outer struct {
		Secret config.Secret
		hidden config.Secret
	}
	o := outer{s, s}
	var all strings.Builder
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t", "%p", "%T"} {
		fmt.Fprintf(&all, verb+"\n", s)
		fmt.Fprintf(&all, verb+"\n", &s)
		fmt.Fprintf(&all, verb+"\n", o)
		fmt.Fprintf(&all, verb+"\n", []config.Secret{o.hidden})
	}
	fmt.Fprintln(&all, s, o, s.String())
	slog.New(slog.NewTextHandler(&all, nil)).Info("text", "secret", s, "in", o)
	slog.New(slog.NewJSONHandler(&all, nil)).Info("json", "secret", s, "in", o)
	for name, marshal := range map[string]func(any) ([]byte, error){"json": json.Marshal, "yaml": yaml.Marshal, "xml": xml.Marshal} {
		out, err := marshal(outer{Secret: s})
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		all.Write(out)
	}
	if got := all.String(); strings.Contains(got, "hunter2") || strings.Contains(got, fmt.Sprintf("%x", "hunter2")) {
		t.Errorf("the secret is printed:\n%s", got)
	}
	if s.Reveal() != "hunter2" {
		t.Error("Reveal does not")
	}
	if (config.Secret{}).Reveal() != "" {
		t.Error("the zero secret is not empty")
	}
}

func TestByteSizeString(t *testing.T) {
	for n, want := range map[config.ByteSize]string{
		0: "0", 1: "1", 1023: "1023", 1024: "1KiB", 1536: "1536", 128 << 20: "128MiB", 1 << 40: "1TiB", 1e9: "1000000000", 3 << 30: "3GiB",
	} {
		if got := n.String(); got != want {
			t.Errorf("ByteSize(%d) = %q, want %q", int64(n), got, want)
		}
	}
}

func TestSizesAndDurations(t *testing.T) {
	for _, c := range []struct {
		text string
		want config.ByteSize
	}{
		{"0", 0}, {"512", 512}, {"512B", 512}, {"1kB", 1000}, {"1KB", 1000}, {"64KiB", 64 << 10}, {"64 KiB", 64 << 10},
		{"1.5GiB", 3 << 29}, {"128mib", 128 << 20}, {"2TB", 2e12},
	} {
		p := parse(t, "source: {generate: {}}\nsinks:\n  - parquet: {path: o, roll: {size: "+c.text+"}}\n")
		if got := p.Sinks[0].Config.(*parquetSink).Roll.Size; got != c.want {
			t.Errorf("%s = %d, want %d", c.text, got, c.want)
		}
	}
	for _, c := range []struct {
		text string
		want time.Duration
	}{{"0s", 0}, {"250ms", 250 * time.Millisecond}, {"1h30m", 90 * time.Minute}, {"7d", 7 * 24 * time.Hour}} {
		p := parse(t, "source: {generate: {}}\nsinks:\n  - parquet: {path: o, roll: {age: "+c.text+"}}\n")
		if got := p.Sinks[0].Config.(*parquetSink).Roll.Age; got != c.want {
			t.Errorf("%s = %v, want %v", c.text, got, c.want)
		}
	}
}

// Variables cannot change the shape of a file, and what they hold is not looked
// at again.
func TestVariablesStayText(t *testing.T) {
	p := parse(t, "source:\n  parquet: {path: \"${EVIL}\", columns: [\"${NESTED}\", \"${X:a:b}\", \"$OUT\", \"$$${OUT}\"]}\nsinks:\n  - parquet: {path: o}\n")
	got := p.Source.Config.(*parquetSource)
	if got.Path != "x, rows: 5}\nsinks: []" {
		t.Errorf("path = %q", got.Path)
	}
	if want := []string{"${OUT}", "a:b", "$OUT", "$${OUT}"}; !reflect.DeepEqual(got.Columns, want) {
		t.Errorf("columns = %q, want %q", got.Columns, want)
	}
}

func TestReference(t *testing.T) {
	var closed int
	golden(t, "testdata/reference.md", []byte(config.Reference(registry(&closed))))
}

func ExampleParse() {
	var closed int
	file := `
source:
  parquet: {paht: "in/*.parquet"}
operators:
  - score: {model: pay.elbo, top: lots}
sinks:
  - parquet: {path: scores/}
`
	_, faults := config.Parse("elbo.yaml", []byte(file), registry(&closed), config.Options{})
	fmt.Println(faults)
	// Output:
	// elbo.yaml:3:13: source.parquet.paht: unknown field (did you mean "path"?)
	// elbo.yaml:5:35: operators[0].score.top: "lots" is not a whole number
}

func ExamplePipeline_Build() {
	var closed int
	file := "source: {generate: {rows: 10}}\nsinks:\n  - parquet: {path: out/}\n"
	p, faults := config.Parse("elbo.yaml", []byte(file), registry(&closed), config.Options{})
	if len(faults) > 0 {
		fmt.Println(faults)
		return
	}
	run, faults := p.Build(context.Background(), config.Env{})
	if len(faults) > 0 {
		fmt.Println(faults)
		return
	}
	fmt.Println(len(run.Sinks), run.Sinks[0].Name, run.CommitInterval)
	// Output: 1 parquet 1s
}

func ExamplePipeline_Effective() {
	var closed int
	file := "source:\n  http: {url: u, password: hunter2}\nsinks:\n  - parquet: {path: out/}\n"
	p, faults := config.Parse("elbo.yaml", []byte(file), registry(&closed), config.Options{})
	if len(faults) > 0 {
		fmt.Println(faults)
		return
	}
	lines := strings.SplitN(string(p.Effective()), "\n", 5)
	fmt.Println(strings.Join(lines[:4], "\n"))
	// Output:
	// source:
	//   http:
	//     url: u
	//     password: '***'
}

// A zero in the file is not taken for "not set".
func TestZeroBeatsTheDefault(t *testing.T) {
	p := parse(t, "source: {generate: {}}\noperators:\n  - score: {model: m, top: 0}\nsinks:\n  - parquet: {path: o, roll: {size: 0, age: 0s}}\ncommit_batches: 0\n")
	if got := p.Operators[0].Config.(*scoreConfig).Top; got != 0 {
		t.Errorf("top = %d, want 0", got)
	}
	if got := p.Sinks[0].Config.(*parquetSink).Roll; got != (roll{}) {
		t.Errorf("roll = %+v, want zeros", got)
	}
	if p.Settings.CommitBatches != 0 {
		t.Errorf("commit_batches = %d, want 0", p.Settings.CommitBatches)
	}
}

// A builder sees a copy, the environment's defaults and the file's promise.
func TestBuilderEnvironment(t *testing.T) {
	var closed int
	reg := registry(&closed)
	var seen config.Env
	reg.Sources = append(reg.Sources, config.SourceKind("probe", "Looks round.", func(_ context.Context, env config.Env, c generateConfig) (pipeline.Source, error) {
		seen = env
		return nil, fmt.Errorf("kinds[1]: %w", os.ErrPermission)
	}))
	p, faults := config.Parse("elbo.yaml", []byte("source:\n  probe:\n    kinds:\n      - spike\n      - swap\nsinks:\n  - parquet: {path: o}\ndelivery: effectively_once\n"), reg, options())
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	_, faults = p.Build(context.Background(), config.Env{})
	if want := "elbo.yaml:5:9: source.probe.kinds[1]: permission denied"; faults.Error() != want {
		t.Errorf("got %q, want %q", faults.Error(), want)
	}
	if !errors.Is(faults.Err(), os.ErrPermission) {
		t.Error("the cause is lost")
	}
	if seen.Log == nil || seen.Allocator == nil || seen.Delivery != config.EffectivelyOnce {
		t.Errorf("environment: %+v", seen)
	}
}

type levels int

func (l *levels) UnmarshalText(text []byte) error {
	if string(text) != "high" {
		return fmt.Errorf("is no level; write high")
	}
	*l = 3
	return nil
}
func (l levels) MarshalText() ([]byte, error) { return []byte("high"), nil }

type colour string

func (colour) EnumValues() []string { return []string{"red", "green"} }

type base struct {
	Shared string `yaml:"shared" default:"both" doc:"A field of many."`
}

type exotic struct {
	base   `yaml:",inline"`
	Level  levels         `yaml:"level" doc:"A level."`
	Colour colour         `yaml:"colour" default:"red" doc:"A colour."`
	Count  *int           `yaml:"count" doc:"A number, if any."`
	Lists  [][]int        `yaml:"lists" doc:"Lists of lists."`
	Sizes  map[string]int `yaml:"sizes" doc:"Numbers by name."`
	Words  []string       `yaml:"words" default:"a,b" doc:"Words."`
	Hidden int            `yaml:"-"`
}

func TestTypesOfFields(t *testing.T) {
	var closed int
	reg := registry(&closed)
	reg.Sources = append(reg.Sources, config.SourceKind("exotic", "All types.", func(context.Context, config.Env, exotic) (pipeline.Source, error) { return nil, nil }))
	if err := reg.Check(); err != nil {
		t.Error(err)
	}
	load := func(fields string) (*config.Pipeline, config.Faults) {
		return config.Parse("elbo.yaml", []byte("source: {exotic: "+fields+"}\nsinks:\n  - parquet: {path: o}\n"), reg, options())
	}
	p, faults := load("{level: high, count: 7, lists: [[1, 2], []], sizes: {a: 1}, shared: x, colour: green}")
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	got := *p.Source.Config.(*exotic)
	seven := 7
	want := exotic{base: base{"x"}, Level: 3, Colour: "green", Count: &seven, Lists: [][]int{{1, 2}, {}}, Sizes: map[string]int{"a": 1}, Words: []string{"a", "b"}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	_, faults = load("{level: low, colour: rod, count: x, lists: [[1, y], 3], sizes: {a: z}, hidden: 1}")
	wants := []string{
		`source.exotic.level: "low" is no level; write high`,
		`source.exotic.colour: "rod" is not one of red, green (did you mean "red"?)`,
		`source.exotic.count: "x" is not a whole number`,
		`source.exotic.lists[0][1]: "y" is not a whole number`,
		`source.exotic.lists[1]: must be a list; write [3]`,
		`source.exotic.sizes.a: "z" is not a whole number`,
		`source.exotic.hidden: unknown field; there is shared, level`,
	}
	if len(faults) != len(wants) {
		t.Errorf("%d faults, want %d:\n%v", len(faults), len(wants), faults)
	}
	for _, want := range wants {
		if !strings.Contains(faults.Error(), want) {
			t.Errorf("faults lack %q:\n%v", want, faults)
		}
	}
}
