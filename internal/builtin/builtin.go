// Package builtin is the one table of every kind of source, operator and sink
// that the program contains.
//
//	reg := builtin.Registry(builtin.Env{Version: "1.2.3"})
//	p, faults := config.Load("elbo.yaml", reg, config.Options{})
//
// Nothing registers itself: what is not in this table is not in the program.
package builtin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/elbo-stream/elbo/operators/columns"
	"github.com/elbo-stream/elbo/operators/decode"
	"github.com/elbo-stream/elbo/operators/encode"
	"github.com/elbo-stream/elbo/operators/score"
	"github.com/elbo-stream/elbo/pipeline"
	"github.com/elbo-stream/elbo/pipeline/config"
	sink "github.com/elbo-stream/elbo/sinks/parquet"
	"github.com/elbo-stream/elbo/sources/generate"
	source "github.com/elbo-stream/elbo/sources/parquet"
	"github.com/elbo-stream/elbo/vae"
)

// Env is what the kinds need to know of the program.
type Env struct {
	Version   string // written into output files
	CreatedBy string // likewise, as Parquet's created_by
	// Overwrite lets sinks replace an existing output.
	Overwrite bool
}

// Registry returns the table.
func Registry(e Env) config.Registry {
	parquetSink := func(_ context.Context, env config.Env, c ParquetSink) (pipeline.Sink, error) { return c.build(e, env) }
	return config.Registry{
		Sources: []config.Kind[pipeline.Source]{
			config.SourceKind("parquet", "Rows of Parquet files, in the order of paths and rows.", buildParquetSource),
			config.SourceKind("generate", "A synthetic stream of payments with planted anomalies.", buildGenerate),
			config.SourceKind("kafka", "Messages of Kafka topics.", buildKafkaSource),
			config.Planned[pipeline.Source]("arrowipc", "Record batches of an Arrow IPC stream."),
		},
		Operators: []config.Kind[pipeline.Operator]{
			config.OperatorKind("select", "Keep, drop, rename and cast columns.", buildSelect),
			config.OperatorKind("score", "Judge rows with a model: all elbo_ columns.", buildScore),
			config.OperatorKind("threshold", "Decide which rows are anomalies by another rule than the model's.", buildThreshold),
			config.OperatorKind("encode", "Columns to the posterior's mean and log-variance.", buildEncode),
			config.OperatorKind("decode", "Latents to rebuilt columns with their standard deviations.", buildDecode),
			config.Planned[pipeline.Operator]("window", "Scores over windows of rows."),
			config.Planned[pipeline.Operator]("drift", "Drift of columns and scores against the training rows."),
		},
		Sinks: []config.Kind[pipeline.Sink]{
			config.SinkKind("parquet", "Parquet files, each whole or not there.", parquetSink),
			config.SinkKind("kafka", "Messages of a Kafka topic.", buildKafkaSink),
			config.Planned[pipeline.Sink]("alert", "Alerts to Alertmanager and webhooks."),
			config.Planned[pipeline.Sink]("arrowipc", "Record batches of an Arrow IPC stream."),
		},
		DeadLetters: config.SinkKind("dead_letters", "Rows that could not be taken, with their reason.",
			func(_ context.Context, env config.Env, c DeadLetters) (pipeline.Sink, error) { return c.build(e, env) }),
		Deliveries: []string{config.AtLeastOnce, config.EffectivelyOnce, config.ExactlyOnce},
	}
}

// ParquetSource is the configuration of source.parquet.
type ParquetSource struct {
	Paths     []string `yaml:"paths" required:"true" doc:"Files, folders and globs."`
	Columns   []string `yaml:"columns" doc:"Columns to read, by name; empty reads all."`
	Ignore    []string `yaml:"ignore" doc:"Columns to leave out, by name."`
	BatchRows int      `yaml:"batch_rows" default:"8192" doc:"Rows in one batch; scores do not depend on it."`
	Hive      bool     `yaml:"hive" doc:"Make string columns of the key=value folders in the paths."`
}

func buildParquetSource(_ context.Context, env config.Env, c ParquetSource) (pipeline.Source, error) {
	return source.New(source.Config{Paths: c.Paths, Columns: c.Columns, Ignore: c.Ignore, BatchRows: c.BatchRows,
		Hive: c.Hive, Allocator: env.Allocator, Log: env.Log})
}

func buildGenerate(_ context.Context, env config.Env, c generate.Config) (pipeline.Source, error) {
	c.Allocator = env.Allocator
	return generate.New(c)
}

// Select is the configuration of the operator select.
type Select struct {
	Keep   []string          `yaml:"keep" doc:"Columns to keep, in this order; empty keeps all."`
	Drop   []string          `yaml:"drop" doc:"Columns to drop."`
	Rename map[string]string `yaml:"rename" doc:"New names by old name."`
	Cast   map[string]string `yaml:"cast" doc:"New types by column: float32, float64, int32, int64, bool or string."`
}

func buildSelect(_ context.Context, env config.Env, c Select) (pipeline.Operator, error) {
	return columns.New(columns.Config{Keep: c.Keep, Drop: c.Drop, Rename: c.Rename, Cast: c.Cast, Allocator: env.Allocator})
}

// Score is the configuration of the operator score.
type Score struct {
	Model          string `yaml:"model" required:"true" doc:"Model file."`
	Top            int    `yaml:"top" default:"5" doc:"Columns to blame in elbo_top."`
	Explain        string `yaml:"explain" default:"flagged" enum:"flagged,all,off" doc:"Rows that get elbo_top."`
	Error          bool   `yaml:"error" doc:"Add elbo_error, the mean squared error on the standardised scale."`
	Latent         bool   `yaml:"latent" doc:"Add elbo_latent_mu and elbo_latent_logvar."`
	Reconstruction bool   `yaml:"reconstruction" doc:"Add elbo_reconstruction_NAME for every model column."`
	Samples        int    `yaml:"samples" doc:"Draws for the reconstruction probability; 0 scores at the posterior mean."`
	Seed           uint64 `yaml:"seed" doc:"Of the draws."`
	Precision      string `yaml:"precision" default:"float32" enum:"float32,bf16" doc:"Number format of weights and activations; bf16 needs a CPU with AVX512-BF16."`
}

// Validate checks what a type cannot say.
func (c *Score) Validate() error {
	var errs []error
	if c.Top < 1 {
		errs = append(errs, fmt.Errorf("top: %d, want 1 or more; explain: off leaves elbo_top out", c.Top))
	}
	if c.Samples < 0 || c.Samples > 10000 {
		errs = append(errs, fmt.Errorf("samples: %d, want 0 to 10000", c.Samples))
	}
	return errors.Join(errs...)
}

// Load reads a model file; its error tells the file and the next step.
func Load(path string) (*vae.Model, error) {
	m, err := vae.Load(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("model: %s: no such file; `elbo train` makes one", path)
	}
	if err != nil {
		return nil, fmt.Errorf("model: %w", err)
	}
	return m, nil
}

func buildScore(_ context.Context, env config.Env, c Score) (pipeline.Operator, error) {
	m, err := Load(c.Model)
	if err != nil {
		return nil, err
	}
	if c.Explain == "off" {
		c.Top = -1
	}
	return score.New(score.Config{Model: m, Top: c.Top, TopAll: c.Explain == "all", Error: c.Error, Latent: c.Latent,
		Reconstruction: c.Reconstruction, Samples: c.Samples, Seed: c.Seed, Precision: vae.Precision(c.Precision), Allocator: env.Allocator}), nil
}

// Encode is the configuration of the operator encode.
type Encode struct {
	Model string `yaml:"model" required:"true" doc:"Model file."`
}

func buildEncode(_ context.Context, env config.Env, c Encode) (pipeline.Operator, error) {
	m, err := Load(c.Model)
	if err != nil {
		return nil, err
	}
	return encode.New(encode.Config{Model: m, Allocator: env.Allocator}), nil
}

// Decode is the configuration of the operator decode.
type Decode struct {
	Model  string `yaml:"model" required:"true" doc:"Model file."`
	Column string `yaml:"column" default:"elbo_latent_mu" doc:"Column of latents: lists of float32."`
}

func buildDecode(_ context.Context, env config.Env, c Decode) (pipeline.Operator, error) {
	m, err := Load(c.Model)
	if err != nil {
		return nil, err
	}
	return decode.New(decode.Config{Model: m, Column: c.Column, Allocator: env.Allocator}), nil
}

// ParquetSink is the configuration of sinks.parquet and of dead_letters.
type ParquetSink struct {
	Path        string `yaml:"path" required:"true" doc:"Folder for part files, or one file when it ends in .parquet."`
	Roll        Roll   `yaml:"roll" doc:"When a part file is finished; whichever comes first."`
	Compression string `yaml:"compression" default:"zstd" enum:"zstd,snappy,lz4_raw,gzip,none" doc:"Page compression."`
	Overwrite   bool   `yaml:"overwrite" doc:"Replace an existing output."`
	Append      bool   `yaml:"append" doc:"Keep the files of a folder and add parts behind them."`
}

// DeadLetters is the configuration of dead_letters: Parquet files, or a topic.
type DeadLetters struct {
	Path        string        `yaml:"path" doc:"Folder for Parquet files, or one file when it ends in .parquet."`
	Roll        Roll          `yaml:"roll" doc:"When a part file is finished; whichever comes first."`
	Compression string        `yaml:"compression" default:"zstd" enum:"zstd,snappy,lz4_raw,gzip,none" doc:"Page compression."`
	Overwrite   bool          `yaml:"overwrite" doc:"Replace an existing output."`
	Append      bool          `yaml:"append" doc:"Keep the files of a folder and add parts behind them."`
	Kafka       *KafkaLetters `yaml:"kafka" doc:"A topic in place of files."`
}

// Validate checks that there is one place.
func (c *DeadLetters) Validate() error {
	switch {
	case c.Path == "" && c.Kafka == nil:
		return errors.New("path: must be set, or kafka")
	case c.Path != "" && c.Kafka != nil:
		return errors.New("kafka: path is set too; choose one")
	case c.Kafka != nil:
		return c.Kafka.validate()
	}
	return nil
}

func (c DeadLetters) build(e Env, env config.Env) (pipeline.Sink, error) {
	if c.Kafka != nil {
		return c.Kafka.build(env)
	}
	env.Delivery = config.AtLeastOnce // unless the rows' sink takes them (JoinLetters)
	return ParquetSink{Path: c.Path, Roll: c.Roll, Compression: c.Compression, Overwrite: c.Overwrite, Append: c.Append}.build(e, env)
}

// buildExact makes the sink whose files are named by the positions of their rows.
func (c ParquetSink) buildExact(e Env, env config.Env) (pipeline.Sink, error) {
	switch {
	case strings.HasSuffix(c.Path, ".parquet"):
		return nil, fmt.Errorf("path: %s is one file, and %s needs a folder: each partition's files are named by where they begin", c.Path, env.Delivery)
	case c.Overwrite:
		return nil, fmt.Errorf("overwrite: does not go with %s, which goes on where the files end; remove the folder to begin anew", env.Delivery)
	case c.Append:
		return nil, fmt.Errorf("append: is what %s does anyway; remove this", env.Delivery)
	}
	return sink.NewExact(sink.ExactConfig{Path: c.Path, RollBytes: int64(c.Roll.Size), RollRows: c.Roll.Rows, RollAge: c.Roll.Age,
		Compression: c.Compression, CreatedBy: e.CreatedBy, Metadata: map[string]string{"elbo.version": e.Version}, Log: env.Log})
}

// Roll says when a file is finished.
type Roll struct {
	Size config.ByteSize `yaml:"size" doc:"Bytes of one file of a folder; 0 means 256MiB. One single file never rolls."`
	Rows int64           `yaml:"rows" doc:"Rows of one file; 0 means no bound."`
	Age  time.Duration   `yaml:"age" doc:"Time from a file's first row to its end: the longest that rows wait to be durable. 0 means no bound."`
}

func (c ParquetSink) build(e Env, env config.Env) (pipeline.Sink, error) {
	if env.Delivery == config.ExactlyOnce || env.Delivery == config.EffectivelyOnce {
		return c.buildExact(e, env)
	}
	return sink.New(sink.Config{Path: c.Path, RollBytes: int64(c.Roll.Size), RollRows: c.Roll.Rows, RollAge: c.Roll.Age,
		Compression: c.Compression, Overwrite: c.Overwrite || e.Overwrite && !c.Append, Append: c.Append, CreatedBy: e.CreatedBy,
		Metadata: map[string]string{"elbo.version": e.Version}, Log: env.Log})
}
