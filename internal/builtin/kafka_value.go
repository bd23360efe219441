package builtin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/apache/arrow/go/v15/arrow"

	"github.com/elbo-stream/elbo/internal/hint"
	"github.com/elbo-stream/elbo/pipeline/codec"
	"github.com/elbo-stream/elbo/pipeline/codec/arrowipc"
	"github.com/elbo-stream/elbo/pipeline/codec/avro"
	"github.com/elbo-stream/elbo/pipeline/codec/json"
	"github.com/elbo-stream/elbo/pipeline/codec/protobuf"
	"github.com/elbo-stream/elbo/pipeline/codec/raw"
	"github.com/elbo-stream/elbo/pipeline/codec/registry"
	"github.com/elbo-stream/elbo/pipeline/config"
)

// KafkaValue is the value of a Kafka source: the format of its messages, and which
// columns they become.
type KafkaValue struct {
	Format  string          `yaml:"format" required:"true" enum:"json,avro,protobuf,arrow,raw" doc:"The format of the messages: JSON documents, Avro, Protobuf, Arrow IPC streams of many rows, or bare float32 numbers."`
	Columns []KafkaColumn   `yaml:"columns" doc:"The columns to make. Empty means every field of the schema (avro, protobuf), else those of the model that scores them."`
	Require []string        `yaml:"require" doc:"json, avro, protobuf: columns without which a message is a dead letter."`
	Time    string          `yaml:"time" default:"rfc3339" enum:"rfc3339,s,ms,us,ns" doc:"How timestamps are written that have no type of their own: a text (json), or a number since 1970."`
	Size    config.ByteSize `yaml:"max_bytes" default:"16MiB" doc:"The largest message; a larger one is a dead letter."`
	Missing string          `yaml:"missing" default:"null" enum:"null,fault" doc:"json: what an absent key becomes; fault makes the message a dead letter."`
	Strings bool            `yaml:"numbers_in_strings" doc:"json: take \"1.5\" for 1.5."`
	NaN     bool            `yaml:"non_finite" doc:"json: take the literals NaN, Infinity and -Infinity, as Python writes them."`
	Header  bool            `yaml:"schema_header" doc:"json: a zero byte and a schema id of four bytes precede each document."`

	Framing  string        `yaml:"framing" default:"confluent" enum:"confluent,none,single_object" doc:"avro, protobuf: what precedes the data: the header of a schema registry, nothing, or (avro) that of a single object."`
	Schema   string        `yaml:"schema" doc:"avro, protobuf: a file with the reader's schema (.avsc, .proto, or a descriptor set .desc)."`
	Subject  string        `yaml:"subject" doc:"avro, protobuf: the subject whose latest schema is the reader's, when there is no file."`
	Message  string        `yaml:"message" doc:"protobuf: the message's name; empty means the first one of the schema."`
	Registry KafkaRegistry `yaml:"registry" doc:"avro, protobuf: the schema registry, or a folder of schemas."`
}

// KafkaRegistry says where schemas are.
type KafkaRegistry struct {
	URLs         []string      `yaml:"urls" doc:"Addresses of one registry."`
	Folder       string        `yaml:"folder" doc:"A folder of schemas in place of a registry: 17.avsc for id 17, payments-value.avsc for a subject."`
	User         string        `yaml:"user" doc:"Who logs in, by HTTP basic authentication."`
	Password     config.Secret `yaml:"password" secret:"true" doc:"The password."`
	PasswordFile string        `yaml:"password_file" doc:"A file with the password."`
	PasswordEnv  string        `yaml:"password_env" doc:"An environment variable with the password."`
	TokenFile    string        `yaml:"token_file" doc:"A file with a bearer token, in place of user."`
	TokenEnv     string        `yaml:"token_env" doc:"An environment variable with a bearer token."`
	CAFile       string        `yaml:"ca_file" doc:"PEM certificates of who may sign the registry's."`
	CertFile     string        `yaml:"cert_file" doc:"Our own certificate in PEM."`
	KeyFile      string        `yaml:"key_file" doc:"Its key in PEM."`
}

// client returns a client, or nil when nothing is set.
func (c KafkaRegistry) client(log *slog.Logger) (*registry.Client, error) {
	if len(c.URLs) == 0 && c.Folder == "" {
		return nil, nil
	}
	rc := registry.Config{URLs: c.URLs, Dir: c.Folder, User: c.User, PasswordFile: c.PasswordFile, PasswordEnv: c.PasswordEnv,
		TokenFile: c.TokenFile, TokenEnv: c.TokenEnv, CAFile: c.CAFile, CertFile: c.CertFile, KeyFile: c.KeyFile, Log: log}
	if c.Password.Reveal() != "" {
		rc.Password = registry.NewSecret(c.Password.Reveal())
	}
	client, err := registry.New(rc)
	if err != nil {
		return nil, fmt.Errorf("value.registry: %w", err)
	}
	return client, nil
}

// SetShort takes value: json for value: {format: json}.
func (v *KafkaValue) SetShort(format string) error {
	v.Format = format
	return oneOf(format, []string{"json", "avro", "protobuf", "arrow", "raw"})
}

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
func (v *KafkaValue) format(ctx context.Context, env config.Env) (codec.Format, error) {
	columns, err := v.columns(env)
	if err != nil {
		return nil, err
	}
	var f codec.Format
	switch v.Format {
	case "avro", "protobuf":
		f, err = v.schemaFormat(ctx, env, columns)
	default:
		if len(columns) == 0 {
			return nil, fmt.Errorf("value.columns: must be set, because no model tells which columns there are; "+
				"write value: {format: %s, columns: [amount float64, country string]}", v.Format)
		}
		f, err = v.plainFormat(columns)
	}
	if err != nil {
		return nil, fmt.Errorf("value: %w", err)
	}
	return f, nil
}

func (v *KafkaValue) plainFormat(columns []codec.Column) (codec.Format, error) {
	switch v.Format {
	case "arrow":
		return arrowipc.New(arrowipc.Config{Columns: columns, MaxBytes: int(v.Size)})
	case "raw":
		for i := range columns { // numbers of the model, whatever they were in training
			if columns[i].Type.ID() == arrow.FLOAT64 {
				columns[i].Type = arrow.PrimitiveTypes.Float32
			}
		}
		return raw.New(raw.Config{Columns: columns})
	}
	return json.New(json.Config{Columns: columns, Missing: json.Missing(v.Missing), Required: v.Require, Time: json.Time(v.Time),
		NumbersInStrings: v.Strings, NonFinite: v.NaN, MaxBytes: int(v.Size), SchemaHeader: v.Header})
}

// schemaFormat makes the formats that have schemas of their own.
func (v *KafkaValue) schemaFormat(ctx context.Context, env config.Env, columns []codec.Column) (codec.Format, error) {
	if (v.Schema != "" || v.Subject != "") && v.Columns == nil {
		columns = nil // every field of the schema
	}
	client, err := v.Registry.client(env.Log)
	if err != nil {
		return nil, err
	}
	var text []byte
	if v.Schema != "" {
		if text, err = os.ReadFile(v.Schema); err != nil {
			return nil, fmt.Errorf("schema: %w", err)
		}
	}
	unit := ""
	if v.Time != "rfc3339" {
		unit = v.Time
	}
	if v.Format == "avro" {
		return avro.New(ctx, avro.Config{Columns: columns, Schema: string(text), Subject: v.Subject, Registry: client,
			Framing: avro.Framing(v.Framing), Required: v.Require, Longs: unit, MaxBytes: int(v.Size)})
	}
	c := protobuf.Config{Columns: columns, Subject: v.Subject, Message: v.Message, Registry: client,
		Framing: protobuf.Framing(v.Framing), Required: v.Require, Integers: unit, MaxBytes: int(v.Size)}
	if strings.HasSuffix(v.Schema, ".desc") {
		c.Descriptors = text
	} else {
		c.Schema = string(text)
	}
	return protobuf.New(ctx, c)
}

// KafkaOutput is the value of a Kafka sink: the format of its messages.
type KafkaOutput struct {
	Format   string        `yaml:"format" default:"json" enum:"json,avro,protobuf,arrow" doc:"The format of the messages."`
	Rows     int           `yaml:"rows" default:"256" doc:"arrow: most rows in one message, which then has no key."`
	SchemaID int32         `yaml:"schema_id" doc:"The id of a schema that precedes each message behind a zero byte, where no registry gives one."`
	Registry KafkaRegistry `yaml:"registry" doc:"avro, protobuf: where the schema of the rows is registered, and gets its id."`
	Subject  string        `yaml:"subject" doc:"avro, protobuf: the subject in the registry; empty means TOPIC-value."`
	Existing bool          `yaml:"existing" doc:"avro, protobuf: use the schema that is registered already, and register nothing."`
}

// SetShort takes value: json for value: {format: json}.
func (v *KafkaOutput) SetShort(format string) error {
	v.Format = format
	return oneOf(format, []string{"json", "avro", "protobuf", "arrow"})
}

// encoder returns what makes encoders for messages of a topic.
func (v KafkaOutput) encoder(topic string, log *slog.Logger) func() (codec.Encoder, error) {
	subject := v.Subject
	if subject == "" {
		subject = topic + "-value"
	}
	client := sync.OnceValues(func() (*registry.Client, error) { return v.Registry.client(log) })
	return func() (codec.Encoder, error) {
		switch v.Format {
		case "arrow":
			return arrowipc.NewEncoder(arrowipc.EncoderConfig{Rows: v.Rows}), nil
		case "avro", "protobuf":
			c, err := client()
			if err != nil {
				return nil, err
			}
			subject := subject
			if c == nil {
				subject = ""
			}
			if v.Format == "avro" {
				return avro.NewEncoder(avro.EncoderConfig{Registry: c, Subject: subject, Find: v.Existing, SchemaID: v.SchemaID})
			}
			return protobuf.NewEncoder(protobuf.EncoderConfig{Registry: c, Subject: subject, Find: v.Existing, SchemaID: v.SchemaID})
		}
		return json.NewEncoder(json.EncoderConfig{SchemaID: v.SchemaID}), nil
	}
}
