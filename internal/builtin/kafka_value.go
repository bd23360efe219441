package builtin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"

	"github.com/apache/arrow/go/v15/arrow"

	"github.com/elbo-stream/elbo/internal/hint"
	"github.com/elbo-stream/elbo/pipeline/codec"
	"github.com/elbo-stream/elbo/pipeline/codec/json"
	"github.com/elbo-stream/elbo/pipeline/config"
)

// KafkaValue is the value of a Kafka source: the format of its messages, and which
// columns they become.
type KafkaValue struct {
	Format  string          `yaml:"format" required:"true" enum:"json" doc:"The format of the messages."`
	Columns []KafkaColumn   `yaml:"columns" doc:"The columns to make. Empty means those of the model that scores them."`
	Missing string          `yaml:"missing" default:"null" enum:"null,fault" doc:"json: what an absent key becomes; fault makes the message a dead letter."`
	Require []string        `yaml:"require" doc:"json: columns without which a message is a dead letter."`
	Time    string          `yaml:"time" default:"rfc3339" enum:"rfc3339,s,ms,us,ns" doc:"json: how timestamps are written."`
	Strings bool            `yaml:"numbers_in_strings" doc:"json: take \"1.5\" for 1.5."`
	NaN     bool            `yaml:"non_finite" doc:"json: take the literals NaN, Infinity and -Infinity, as Python writes them."`
	Header  bool            `yaml:"schema_header" doc:"json: a zero byte and a schema id of four bytes precede each document."`
	Size    config.ByteSize `yaml:"max_bytes" default:"16MiB" doc:"The largest message; a larger one is a dead letter."`
}

// SetShort takes value: json for value: {format: json}.
func (v *KafkaValue) SetShort(format string) error {
	v.Format = format
	return oneOf(format, valueFormats())
}

func valueFormats() []string { return []string{"json"} }

func oneOf(word string, words []string) error {
	if slices.Contains(words, word) {
		return nil
	}
	return fmt.Errorf("is none of %s%s", strings.Join(words, ", "), hint.DidYouMean(word, words))
}

// KafkaColumn is one column of a KafkaValue.
type KafkaColumn struct {
	Name string `yaml:"name" required:"true" doc:"The column's name."`
	Type string `yaml:"type" default:"float64" doc:"float32, float64, int32, int64, bool, string, binary, timestamp, or a vector such as float32[8]."`
	Path string `yaml:"path" doc:"Where it stands in a message, as payment.amount; empty means under its name."`
}

// SetShort takes "amount", "amount float32" and "amount float32 payment.amount".
func (c *KafkaColumn) SetShort(text string) error {
	words := strings.Fields(text)
	if len(words) == 0 || len(words) > 3 {
		return errors.New("is no column; write a name, its type and its path, the last two only if needed: amount float32 payment.amount")
	}
	c.Name, c.Type = words[0], "float64"
	if len(words) > 1 {
		c.Type = words[1]
	}
	if len(words) > 2 {
		c.Path = words[2]
	}
	_, err := columnType(c.Type)
	return err
}

// Validate checks the type's name.
func (c *KafkaColumn) Validate() error {
	if _, err := columnType(c.Type); err != nil {
		return fmt.Errorf("type: %q %w", c.Type, err)
	}
	return nil
}

// columnType returns the Arrow type of a name; the error continues a sentence.
func columnType(name string) (arrow.DataType, error) {
	types := map[string]arrow.DataType{
		"float32": arrow.PrimitiveTypes.Float32, "float64": arrow.PrimitiveTypes.Float64,
		"int32": arrow.PrimitiveTypes.Int32, "int64": arrow.PrimitiveTypes.Int64,
		"bool": arrow.FixedWidthTypes.Boolean, "string": arrow.BinaryTypes.String, "binary": arrow.BinaryTypes.Binary,
		"timestamp": &arrow.TimestampType{Unit: arrow.Microsecond, TimeZone: "UTC"},
	}
	if t, ok := types[name]; ok {
		return t, nil
	}
	if width, ok := strings.CutPrefix(name, "float32["); ok {
		if n, err := strconv.Atoi(strings.TrimSuffix(width, "]")); err == nil && n > 0 && n < 1<<20 && strings.HasSuffix(width, "]") {
			return arrow.FixedSizeListOf(int32(n), arrow.PrimitiveTypes.Float32), nil
		}
	}
	return nil, fmt.Errorf("is no type; there are float32, float64, int32, int64, bool, string, binary, timestamp and float32[8]%s",
		hint.DidYouMean(name, []string{"float32", "float64", "int32", "int64", "bool", "string", "binary", "timestamp"}))
}

// columns returns the columns to make: those of the file, or what the model needs.
func (v *KafkaValue) columns(env config.Env) ([]codec.Column, error) {
	var all []codec.Column
	for _, c := range v.Columns {
		t, err := columnType(c.Type)
		if err != nil {
			return nil, fmt.Errorf("value.columns: column %q: type %q %w", c.Name, c.Type, err)
		}
		all = append(all, codec.Column{Name: c.Name, Type: t, Path: c.Path})
	}
	if all == nil {
		for _, f := range env.Needs {
			all = append(all, codec.Column{Name: f.Name, Type: f.Type})
		}
	}
	return all, nil
}

// format makes the format that reads the messages.
func (v *KafkaValue) format(_ context.Context, env config.Env) (codec.Format, error) {
	columns, err := v.columns(env)
	if err != nil {
		return nil, err
	}
	if len(columns) == 0 {
		return nil, errors.New("value.columns: must be set, because no model tells which columns there are; " +
			"write value: {format: json, columns: [amount float64, country string]}")
	}
	f, err := json.New(json.Config{Columns: columns, Missing: json.Missing(v.Missing), Required: v.Require, Time: json.Time(v.Time),
		NumbersInStrings: v.Strings, NonFinite: v.NaN, MaxBytes: int(v.Size), SchemaHeader: v.Header})
	if err != nil {
		return nil, fmt.Errorf("value: %w", err)
	}
	return f, nil
}

// KafkaOutput is the value of a Kafka sink: the format of its messages.
type KafkaOutput struct {
	Format   string `yaml:"format" default:"json" enum:"json" doc:"The format of the messages."`
	SchemaID int32  `yaml:"schema_id" doc:"json: write a zero byte and this id of a JSON Schema before each object."`
}

// SetShort takes value: json for value: {format: json}.
func (v *KafkaOutput) SetShort(format string) error {
	v.Format = format
	return oneOf(format, outputFormats())
}

func outputFormats() []string { return []string{"json"} }

// encoder returns what makes encoders for messages of a topic.
func (v KafkaOutput) encoder(_ string, _ *slog.Logger) func() (codec.Encoder, error) {
	return func() (codec.Encoder, error) { return json.NewEncoder(json.EncoderConfig{SchemaID: v.SchemaID}), nil }
}
