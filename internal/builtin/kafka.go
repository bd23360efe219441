package builtin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"strconv"
	"time"

	"github.com/elbo-stream/elbo/internal/kafka"
	"github.com/elbo-stream/elbo/pipeline"
	"github.com/elbo-stream/elbo/pipeline/config"
	sinkkafka "github.com/elbo-stream/elbo/sinks/kafka"
	sourcekafka "github.com/elbo-stream/elbo/sources/kafka"
)

// KafkaCluster is how a pipeline file says where a cluster is and who we are.
type KafkaCluster struct {
	Brokers  []string  `yaml:"brokers" required:"true" doc:"Some of the cluster's brokers, as host:port."`
	ClientID string    `yaml:"client_id" default:"elbo" doc:"The name in the brokers' logs and quotas."`
	TLS      KafkaTLS  `yaml:"tls" doc:"Encryption; also how each end is known by its certificate."`
	SASL     KafkaSASL `yaml:"sasl" doc:"Login. Passwords come from files or the environment and are never logged."`
}

// KafkaTLS is the tls of a cluster.
type KafkaTLS struct {
	Enabled    bool   `yaml:"enabled" doc:"Speak TLS, 1.2 or later."`
	CAFile     string `yaml:"ca_file" doc:"PEM certificates of who may sign the brokers'; empty means the system's."`
	CertFile   string `yaml:"cert_file" doc:"Our own certificate in PEM, for brokers that ask for one."`
	KeyFile    string `yaml:"key_file" doc:"Its key in PEM."`
	ServerName string `yaml:"server_name" doc:"The name that the broker's certificate must be for; empty means the one that is dialled."`
	Insecure   bool   `yaml:"insecure" doc:"Do not check the broker's certificate. For tests."`
}

// KafkaSASL is the sasl of a cluster.
type KafkaSASL struct {
	Mechanism    string        `yaml:"mechanism" enum:"PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER,AWS_MSK_IAM" doc:"How to log in; empty means not at all."`
	User         string        `yaml:"user" doc:"Who logs in, with PLAIN and SCRAM."`
	UserFile     string        `yaml:"user_file" doc:"A file with the user's name."`
	UserEnv      string        `yaml:"user_env" doc:"An environment variable with the user's name."`
	Password     config.Secret `yaml:"password" secret:"true" doc:"The password; a file or a variable keeps it out of this file."`
	PasswordFile string        `yaml:"password_file" doc:"A file with the password, read anew for each connection."`
	PasswordEnv  string        `yaml:"password_env" doc:"An environment variable with the password."`
	OAuth        KafkaOAuth    `yaml:"oauth" doc:"Where OAUTHBEARER gets its token."`
	AWS          KafkaAWS      `yaml:"aws" doc:"Who logs in with AWS_MSK_IAM; what is empty is found as Amazon's tools do."`
}

// KafkaOAuth is the oauth of sasl.
type KafkaOAuth struct {
	TokenFile        string            `yaml:"token_file" doc:"A file with a token that somebody renews."`
	TokenURL         string            `yaml:"token_url" doc:"The token endpoint, for the client credentials grant."`
	ClientID         string            `yaml:"client_id" doc:"The client's id there."`
	ClientSecret     config.Secret     `yaml:"client_secret" secret:"true" doc:"The client's secret."`
	ClientSecretFile string            `yaml:"client_secret_file" doc:"A file with the client's secret."`
	ClientSecretEnv  string            `yaml:"client_secret_env" doc:"An environment variable with the client's secret."`
	Scope            string            `yaml:"scope" doc:"Scopes to ask for, parted by spaces."`
	SecretInBody     bool              `yaml:"secret_in_body" doc:"Send id and secret as form fields in place of HTTP basic authentication."`
	CAFile           string            `yaml:"ca_file" doc:"PEM certificates of who may sign the endpoint's."`
	Extensions       map[string]string `yaml:"extensions" doc:"SASL extensions beside the token, as logicalCluster."`
}

// KafkaAWS is the aws of sasl.
type KafkaAWS struct {
	Region      string `yaml:"region" doc:"Empty means AWS_REGION, or what the broker's name says."`
	Profile     string `yaml:"profile" doc:"Of the shared credentials file."`
	RoleARN     string `yaml:"role_arn" doc:"A role to take first."`
	SessionName string `yaml:"session_name" doc:"The name of that role's session; empty means elbo."`
}

func credential(s config.Secret) kafka.Credential {
	if s.Reveal() == "" {
		return kafka.Credential{}
	}
	return kafka.NewCredential(s.Reveal())
}

func (c KafkaCluster) config(log *slog.Logger) kafka.Config {
	s := c.SASL
	return kafka.Config{Brokers: c.Brokers, ClientID: c.ClientID, Log: log, Security: kafka.Security{
		TLS:       kafka.TLS(c.TLS),
		Mechanism: s.Mechanism, User: s.User, UserFile: s.UserFile, UserEnv: s.UserEnv,
		Password: credential(s.Password), PasswordFile: s.PasswordFile, PasswordEnv: s.PasswordEnv,
		OAuth: kafka.OAuth{TokenFile: s.OAuth.TokenFile, TokenURL: s.OAuth.TokenURL, ClientID: s.OAuth.ClientID,
			ClientSecret: credential(s.OAuth.ClientSecret), ClientSecretFile: s.OAuth.ClientSecretFile, ClientSecretEnv: s.OAuth.ClientSecretEnv,
			Scope: s.OAuth.Scope, SecretInBody: s.OAuth.SecretInBody, CAFile: s.OAuth.CAFile, Extensions: s.OAuth.Extensions},
		AWS: kafka.AWS(s.AWS),
	}}
}

// Validate checks the security settings, all at once, without opening a file.
func (c KafkaCluster) validate() error {
	cfg := c.config(nil)
	return cfg.Security.Check()
}

// warn logs what is allowed and yet unwise.
func (c KafkaCluster) warn(log *slog.Logger) {
	cfg := c.config(nil)
	for _, w := range cfg.Security.Warnings() {
		log.Warn(w)
	}
}

// KafkaSource is the configuration of source.kafka.
type KafkaSource struct {
	KafkaCluster `yaml:",inline"`
	Topics       []string      `yaml:"topics" doc:"Topics to read."`
	Pattern      string        `yaml:"topic_pattern" doc:"Read every topic whose whole name matches this regular expression, also later ones."`
	Group        string        `yaml:"group" doc:"The consumer group, which keeps the offsets; empty reads every partition alone from start, each time."`
	InstanceID   string        `yaml:"instance_id" doc:"Static membership: a restart within session_timeout moves no partition. auto takes the host's name, off joins dynamically; processes on one host need names of their own." default:"off"`
	Assignment   string        `yaml:"assignment" default:"range" enum:"range,cooperative-sticky" doc:"How partitions are dealt out; the same for all members. cooperative-sticky keeps what stays while others move."`
	Session      time.Duration `yaml:"session_timeout" default:"45s" doc:"How long a silent member stays in the group."`
	Rebalance    time.Duration `yaml:"rebalance_timeout" default:"60s" doc:"How long members have to give up partitions; half of it is for finishing what was read."`
	Discover     time.Duration `yaml:"discover_interval" default:"30s" doc:"How often new topics and partitions are looked for."`
	Start        string        `yaml:"start" default:"earliest" doc:"Where a partition begins that has no position yet: earliest, latest, an RFC 3339 time, or an offset."`
	OnGap        string        `yaml:"on_gap" default:"fail" enum:"fail,earliest,latest" doc:"When a position is gone (retention): stop, or count the gap and go on there."`
	UntilEnd     bool          `yaml:"until_end" doc:"Stop at the end that the partitions have at the start; for back-fills. The flag --until-end does the same."`
	Isolation    string        `yaml:"isolation" default:"read_committed" enum:"read_committed,read_uncommitted" doc:"Whether messages of open and aborted transactions are left out."`
	Value        KafkaValue    `yaml:"value" required:"true" doc:"The format of the messages: json, avro, protobuf, arrow or raw; or keys."`
	Meta         []string      `yaml:"meta" default:"kafka_topic,kafka_partition,kafka_offset,kafka_timestamp,kafka_key" doc:"Columns that say where a row comes from; there is kafka_headers too."`
	BatchRows    int           `yaml:"batch_rows" default:"16384" doc:"Most messages in a batch, which also ends at 16 MiB; scores do not depend on it."`
	Fetch        KafkaFetch    `yaml:"fetch" doc:"Bounds of reading ahead."`
}

// KafkaFetch is the fetch of a Kafka source.
type KafkaFetch struct {
	MaxWait        time.Duration   `yaml:"max_wait" default:"500ms" doc:"How long a broker waits for min_bytes."`
	MinBytes       config.ByteSize `yaml:"min_bytes" default:"1" doc:"What is worth an answer; more makes larger batches and later rows."`
	PartitionBytes config.ByteSize `yaml:"partition_bytes" default:"4MiB" doc:"Most bytes of one partition in an answer."`
	Memory         config.ByteSize `yaml:"memory" default:"64MiB" doc:"Most bytes of answers that are held; without room nothing is asked for."`
}

// Validate checks what a type cannot say.
func (c *KafkaSource) Validate() error {
	errs := []error{c.validate()}
	switch {
	case len(c.Topics) == 0 && c.Pattern == "":
		errs = append(errs, errors.New("topics: must be set, or topic_pattern"))
	case len(c.Topics) > 0 && c.Pattern != "":
		errs = append(errs, errors.New("topic_pattern: topics is set too; choose one"))
	}
	if _, err := regexp.Compile(c.Pattern); err != nil {
		errs = append(errs, fmt.Errorf("topic_pattern: %w", err))
	}
	if _, err := c.start(); err != nil {
		errs = append(errs, fmt.Errorf("start: %w", err))
	}
	if c.BatchRows < 1 {
		errs = append(errs, fmt.Errorf("batch_rows: %d, want 1 or more", c.BatchRows))
	}
	return errors.Join(errs...)
}

// start reads where to begin.
func (c *KafkaSource) start() (sourcekafka.Start, error) {
	switch c.Start {
	case "earliest", "latest":
		return sourcekafka.Start{Where: sourcekafka.Where(c.Start)}, nil
	}
	if n, err := strconv.ParseInt(c.Start, 10, 64); err == nil && n >= 0 {
		return sourcekafka.Start{Where: sourcekafka.AtOffset, Offset: n}, nil
	}
	t, err := time.Parse(time.RFC3339, c.Start)
	if err != nil {
		return sourcekafka.Start{}, fmt.Errorf("%q is none of earliest, latest, an RFC 3339 time as 2026-01-31T08:00:00Z, and an offset", c.Start)
	}
	return sourcekafka.Start{Where: sourcekafka.AtTime, Time: t}, nil
}

// instance returns the static member id; "" is none.
func (c *KafkaSource) instance() (string, error) {
	switch c.InstanceID {
	case "off":
		return "", nil
	case "auto":
		host, err := os.Hostname()
		if err != nil {
			return "", fmt.Errorf("instance_id: the host has no name: %w; write one", err)
		}
		return host, nil
	}
	return c.InstanceID, nil
}

func buildKafkaSource(ctx context.Context, env config.Env, c KafkaSource) (pipeline.Source, error) {
	c.warn(env.Log)
	format, err := c.Value.format(ctx, env)
	if err != nil {
		return nil, err
	}
	start, err := c.start()
	if err != nil {
		return nil, err
	}
	instance, err := c.instance()
	if err != nil {
		return nil, err
	}
	if c.Group == "" {
		instance = ""
	}
	var pattern *regexp.Regexp
	if c.Pattern != "" {
		pattern = regexp.MustCompile(c.Pattern) // Validate has compiled it
	}
	return sourcekafka.New(sourcekafka.Config{
		Cluster: c.config(env.Log), Topics: c.Topics, Pattern: pattern, Group: c.Group, Instance: instance,
		Cooperative: c.Assignment == "cooperative-sticky", Session: c.Session, Rebalance: c.Rebalance, Discover: c.Discover,
		Start: start, OnGap: sourcekafka.Where(c.OnGap), UntilEnd: c.UntilEnd, ReadUncommitted: c.Isolation == "read_uncommitted",
		Format: format, Meta: c.Meta, BatchRows: c.BatchRows,
		Fetch: kafka.FetchConfig{MaxWait: c.Fetch.MaxWait, MinBytes: int32(c.Fetch.MinBytes),
			PartitionBytes: int32(min(c.Fetch.PartitionBytes, 1<<30)), Credits: int64(c.Fetch.Memory)},
		Allocator: env.Allocator, Log: env.Log,
	})
}

// KafkaSink is the configuration of sinks.kafka.
type KafkaSink struct {
	KafkaCluster `yaml:",inline"`
	Topic        string            `yaml:"topic" required:"true" doc:"Where rows go."`
	Value        KafkaOutput       `yaml:"value" default:"json" doc:"The format of the messages: json, avro, protobuf or arrow; or keys."`
	Columns      []string          `yaml:"columns" doc:"Columns to write, in this order; empty writes all but kafka_..."`
	Where        string            `yaml:"where" doc:"A boolean column; only rows in which it is true are written."`
	Key          string            `yaml:"key" doc:"The column that becomes the message's key; empty keeps the source's key."`
	Partition    string            `yaml:"partition" default:"source" enum:"source,key" doc:"Keep the number of the source's partition, or hash the key as Kafka's own producer does."`
	Headers      map[string]string `yaml:"headers" doc:"Headers beside each message."`
	Provenance   *bool             `yaml:"provenance" doc:"Write headers that say which message, and which model, a row comes from; true unless set."`
	KeepHeaders  bool              `yaml:"keep_headers" doc:"Copy the source's headers; needs kafka_headers in the source's meta."`
	Commit       KafkaCommit       `yaml:"commit" doc:"When rows are acknowledged or a transaction ends; whichever comes first."`
	Compression  kafka.Compression `yaml:"compression" default:"none" doc:"none, gzip, snappy, lz4 or zstd."`
	BatchBytes   config.ByteSize   `yaml:"batch_bytes" default:"1MB" doc:"Most bytes of a batch before compression; the topic's max.message.bytes must be larger."`
	Memory       config.ByteSize   `yaml:"memory" default:"64MiB" doc:"Most bytes of rows that wait."`
	Transaction  KafkaTransaction  `yaml:"transaction" doc:"Of delivery exactly_once."`
}

// KafkaCommit is the commit of a Kafka sink.
type KafkaCommit struct {
	Rows     int           `yaml:"rows" default:"5000" doc:"Rows of one source partition."`
	Interval time.Duration `yaml:"interval" default:"100ms" doc:"Time since the first of them."`
}

// KafkaTransaction is the transaction of a Kafka sink.
type KafkaTransaction struct {
	Prefix  string        `yaml:"prefix" default:"elbo" doc:"Begins the transactional ids, PREFIX.GROUP.TOPIC.PARTITION; the ids need the right to write."`
	Timeout time.Duration `yaml:"timeout" default:"60s" doc:"After which the broker aborts the transaction of a process that is gone; below the broker's transaction.max.timeout.ms."`
}

// Validate checks what a type cannot say.
func (c *KafkaSink) Validate() error {
	errs := []error{c.validate()}
	if c.Commit.Rows < 1 {
		errs = append(errs, fmt.Errorf("commit.rows: %d, want 1 or more", c.Commit.Rows))
	}
	if c.Commit.Interval <= 0 {
		errs = append(errs, errors.New("commit.interval: must be above 0"))
	}
	return errors.Join(errs...)
}

func buildKafkaSink(_ context.Context, env config.Env, c KafkaSink) (pipeline.Sink, error) {
	c.warn(env.Log)
	return sinkkafka.New(sinkkafka.Config{
		Cluster: c.config(env.Log), Topic: c.Topic, Encoder: c.Value.encoder(c.Topic, env.Log), Columns: c.Columns, Where: c.Where, Key: c.Key,
		Partition: sinkkafka.Partitioning(c.Partition), Headers: c.Headers, NoHeaders: c.Provenance != nil && !*c.Provenance,
		KeepHeaders: c.KeepHeaders, Delivery: sinkkafka.Delivery(env.Delivery), CommitRows: c.Commit.Rows, CommitInterval: c.Commit.Interval,
		TransactionPrefix: c.Transaction.Prefix, TransactionTimeout: c.Transaction.Timeout, Compression: c.Compression,
		MaxBatchBytes: int(c.BatchBytes), MaxBytes: int64(c.Memory), Log: env.Log,
	})
}

// KafkaLetters is the kafka of dead_letters.
type KafkaLetters struct {
	KafkaCluster `yaml:",inline"`
	Topic        string            `yaml:"topic" required:"true" doc:"Where dead letters go: the original message, and headers that say what is wrong."`
	Compression  kafka.Compression `yaml:"compression" default:"none" doc:"none, gzip, snappy, lz4 or zstd."`
}

func (c KafkaLetters) build(env config.Env) (pipeline.Sink, error) {
	return sinkkafka.NewLetters(sinkkafka.LettersConfig{Cluster: c.config(env.Log), Topic: c.Topic, Compression: c.Compression,
		Encoder: KafkaOutput{Format: "json"}.encoder(c.Topic, env.Log), Log: env.Log})
}
