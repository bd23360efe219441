package config_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"time"

	"github.com/apache/arrow/go/v15/arrow"

	"github.com/elbo-stream/elbo/pipeline"
	"github.com/elbo-stream/elbo/pipeline/config"
)

// The kinds of the tests look like the real ones and build fakes.

type generateConfig struct {
	Rows   int64    `yaml:"rows" doc:"Number of rows; 0 means endless."`
	Seed   uint64   `yaml:"seed" default:"1" doc:"Selects the stream."`
	Rate   float64  `yaml:"anomaly_rate" default:"0.01" doc:"Share of anomalies."`
	Kinds  []string `yaml:"kinds" enum:"spike,swap,missing" doc:"Kinds of anomalies."`
	Label  bool     `yaml:"label" doc:"Add the truth."`
	Hidden any      `yaml:"-"`
}

type parquetSource struct {
	Path      string   `yaml:"path" required:"true" doc:"Files to read, with * and **."`
	Columns   []string `yaml:"columns" doc:"Columns to read; empty means all."`
	BatchRows int      `yaml:"batch_rows" default:"8192" doc:"Rows in one batch."`
}

func (c *parquetSource) Validate() error {
	var errs []error
	if c.BatchRows < 1 {
		errs = append(errs, fmt.Errorf("batch_rows: %d is not at least 1", c.BatchRows))
	}
	for i, col := range c.Columns {
		if strings.HasPrefix(col, "elbo_") {
			errs = append(errs, fmt.Errorf("columns[%d]: %s is a name that elbo writes", i, col))
		}
	}
	return errors.Join(errs...)
}

type httpSource struct {
	URL      string            `yaml:"url" required:"true" doc:"Address to read."`
	User     string            `yaml:"user" doc:"User name."`
	Password config.Secret     `yaml:"password" doc:"Password of the user."`
	Token    string            `yaml:"token" secret:"true" doc:"Token in place of a password."`
	Headers  map[string]string `yaml:"headers" doc:"Headers to send."`
	TLS      *tlsConfig        `yaml:"tls" doc:"Encryption; without it there is none."`
	Retries  uint8             `yaml:"retries" default:"3" doc:"Tries after the first."`
	Timeout  time.Duration     `yaml:"timeout" default:"10s" doc:"Longest wait."`
	Servers  []server          `yaml:"servers" doc:"More servers."`
}

type tlsConfig struct {
	CA         string `yaml:"ca" doc:"Certificate file."`
	MinVersion string `yaml:"min_version" default:"1.3" enum:"1.2,1.3" doc:"Lowest version."`
}

type server struct {
	Host   string `yaml:"host" required:"true" doc:"Name of the server."`
	Weight int    `yaml:"weight" default:"1" doc:"Its share."`
}

type selectConfig struct {
	Columns []string `yaml:"columns" required:"true" doc:"Columns to keep."`
}

type scoreConfig struct {
	Model   string `yaml:"model" required:"true" doc:"Model file."`
	Explain string `yaml:"explain" default:"flagged" enum:"all,flagged,off" doc:"Which rows get elbo_top."`
	Top     int    `yaml:"top" default:"5" doc:"Columns to blame."`
}

type thresholdConfig struct {
	TargetRate float64 `yaml:"target_rate" default:"0.001" doc:"Share of rows to flag."`
}

type encodeConfig struct{}

type roll struct {
	Size config.ByteSize `yaml:"size" default:"128MiB" doc:"Bytes of a file."`
	Age  time.Duration   `yaml:"age" default:"10m" doc:"Age of a file."`
}

type parquetSink struct {
	Path  string `yaml:"path" required:"true" doc:"Folder to write."`
	Roll  roll   `yaml:"roll" doc:"When a file is complete."`
	Where string `yaml:"where" doc:"Boolean column of the rows to write."`
	Page  int64  `yaml:"page" unit:"bytes" default:"64KiB" doc:"Bytes of a page."`
}

type deadLetters struct {
	Path string `yaml:"path" required:"true" doc:"Folder for rows that failed."`
}

type fakeSource struct{ closed *int }

func (fakeSource) Schema(context.Context) (*arrow.Schema, error) {
	return arrow.NewSchema(nil, nil), nil
}
func (fakeSource) Batches(context.Context, []pipeline.Mark) iter.Seq2[*pipeline.Batch, error] {
	return func(func(*pipeline.Batch, error) bool) {}
}
func (fakeSource) Commit(context.Context, []pipeline.Mark) error { return nil }
func (s fakeSource) Close() error                                { *s.closed++; return nil }

type fakeOperator struct{}

func (fakeOperator) Bind(in *arrow.Schema) (*arrow.Schema, error) { return in, nil }
func (fakeOperator) Apply(_ context.Context, rec arrow.Record) (arrow.Record, error) {
	rec.Retain()
	return rec, nil
}

type fakeSink struct{ closed *int }

func (fakeSink) Bind(*arrow.Schema) error                          { return nil }
func (fakeSink) Write(context.Context, uint64, arrow.Record) error { return nil }
func (fakeSink) Durable() uint64                                   { return 0 }
func (fakeSink) Flush(context.Context) error                       { return nil }
func (s fakeSink) Close() error                                    { *s.closed++; return nil }

// registry returns kinds whose sources and sinks count how often they are closed.
func registry(closed *int) config.Registry {
	source := func(context.Context) (pipeline.Source, error) { return fakeSource{closed}, nil }
	operator := func() (pipeline.Operator, error) { return fakeOperator{}, nil }
	return config.Registry{
		Sources: []config.Kind[pipeline.Source]{
			config.SourceKind("generate", "Made-up payments.", func(ctx context.Context, _ config.Env, _ generateConfig) (pipeline.Source, error) { return source(ctx) }),
			config.SourceKind("parquet", "Reads Parquet files.", func(ctx context.Context, _ config.Env, c parquetSource) (pipeline.Source, error) {
				if strings.HasPrefix(c.Path, "missing/") {
					return nil, errors.Join(fmt.Errorf("path: no file matches %s", c.Path), errors.New("nothing to read"))
				}
				return source(ctx)
			}),
			config.SourceKind("http", "Reads from a server.", func(ctx context.Context, _ config.Env, _ httpSource) (pipeline.Source, error) { return source(ctx) }),
			config.Planned[pipeline.Source]("kafka", "Reads Kafka topics."),
		},
		Operators: []config.Kind[pipeline.Operator]{
			config.OperatorKind("select", "Keeps some columns.", func(context.Context, config.Env, selectConfig) (pipeline.Operator, error) { return operator() }),
			config.OperatorKind("encode", "Gives the latents.", func(context.Context, config.Env, encodeConfig) (pipeline.Operator, error) { return operator() }),
			config.OperatorKind("score", "Scores each row.", func(_ context.Context, _ config.Env, c scoreConfig) (pipeline.Operator, error) {
				if strings.HasPrefix(c.Model, "missing") {
					return nil, fmt.Errorf("model: %s does not exist; train one with elbo train", c.Model)
				}
				return operator()
			}),
			config.OperatorKind("threshold", "Flags the strangest rows.", func(context.Context, config.Env, thresholdConfig) (pipeline.Operator, error) { return operator() }),
			config.Planned[pipeline.Operator]("window", "Gathers rows of a key."),
		},
		Sinks: []config.Kind[pipeline.Sink]{
			config.SinkKind("parquet", "Writes Parquet files.", func(_ context.Context, _ config.Env, c parquetSink) (pipeline.Sink, error) {
				if c.Path == "/full" {
					return nil, errors.New("no space left on the device")
				}
				return fakeSink{closed}, nil
			}),
			config.Planned[pipeline.Sink]("kafka", "Writes to a Kafka topic."),
			config.Planned[pipeline.Sink]("alert", "Sends alerts."),
		},
		DeadLetters: config.SinkKind("dead_letters", "", func(context.Context, config.Env, deadLetters) (pipeline.Sink, error) {
			return fakeSink{closed}, nil
		}),
		Deliveries: []string{config.AtLeastOnce, config.EffectivelyOnce},
	}
}

// options are a small world: a few variables and files.
func options() config.Options {
	env := map[string]string{
		"OUT": "scores/", "ROWS": "1000", "WORD": "lots", "DB_PASSWORD": "env-hunter2", "EMPTY": "",
		"EVIL": "x, rows: 5}\nsinks: []", "NESTED": "${OUT}",
	}
	files := map[string]string{"secrets/password": "file-hunter2\n", "secrets/binary": "\xff\xfe", "secrets/big": strings.Repeat("x", 70_000)}
	return config.Options{
		LookupEnv: func(name string) (string, bool) { v, ok := env[name]; return v, ok },
		ReadFile: func(path string) ([]byte, error) {
			if path == "secrets/forbidden" {
				return nil, fmt.Errorf("open %s: %w", path, errPermission)
			}
			if text, ok := files[path]; ok {
				return []byte(text), nil
			}
			return nil, fmt.Errorf("open %s: %w", path, errNotExist)
		},
	}
}
