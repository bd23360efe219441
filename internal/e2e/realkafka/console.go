package realkafka

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/elbo-stream/elbo/internal/e2e/child"
	"github.com/elbo-stream/elbo/internal/e2e/oracle"
)

// What parts the console consumer's output. They may not stand in keys, values or
// headers of what it reads.
const (
	fieldEnd  = "\x1f"
	headerEnd = "\x1d"
	recordEnd = "\x1e\n"
	nullWord  = "\x1cnull"
)

// ConsoleRead returns the committed records of a topic as Kafka's own console
// consumer prints them. It ends after n records, or when four seconds brought none;
// with n 0 only then, so that records too many are seen. Where nothing came at all it
// may have been slow to begin on a busy machine, and is given half a minute.
func (c *Cluster) ConsoleRead(ctx context.Context, topic string, n int) ([]oracle.Record, error) {
	rs, err := c.consoleRead(ctx, topic, n, 4*time.Second)
	if err == nil && len(rs) == 0 {
		rs, err = c.consoleRead(ctx, topic, n, 30*time.Second)
	}
	return rs, err
}

func (c *Cluster) consoleRead(ctx context.Context, topic string, n int, idle time.Duration) ([]oracle.Record, error) {
	args := []string{"--bootstrap-server", strings.Join(c.Brokers, ","), "--topic", topic, "--from-beginning",
		"--isolation-level", "read_committed", "--timeout-ms", strconv.FormatInt(idle.Milliseconds(), 10)}
	if n > 0 {
		args = append(args, "--max-messages", strconv.Itoa(n))
	}
	for _, p := range []string{"print.timestamp=true", "print.partition=true", "print.offset=true", "print.headers=true",
		"print.key=true", "key.separator=" + fieldEnd, "headers.separator=" + headerEnd, "line.separator=" + recordEnd, "null.literal=" + nullWord} {
		args = append(args, "--property", p)
	}
	cmd := c.JavaCommand(ctx, "org.apache.kafka.tools.consumer.ConsoleConsumer", args...)
	var out, log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &log
	// It ends with 1 when time is up, which is how it always ends here.
	if err := child.Run(cmd); err != nil && !strings.Contains(log.String(), "Processed a total of") {
		return nil, fmt.Errorf("console consumer: %w: %s", err, log.Bytes())
	}
	return parseConsole(out.String(), topic)
}

func parseConsole(out, topic string) (rs []oracle.Record, err error) {
	for text := range strings.SplitSeq(out, recordEnd) {
		if text == "" {
			continue
		}
		f := strings.Split(text, fieldEnd)
		if len(f) != 6 {
			return nil, fmt.Errorf("output of the console consumer: %d fields in %q", len(f), text)
		}
		r := oracle.Record{Topic: topic, Key: nullable(f[4]), Value: nullable(f[5])}
		if _, err := fmt.Sscanf(strings.Join(f[:3], " "), "CreateTime:%d Partition:%d Offset:%d", &r.Timestamp, &r.Partition, &r.Offset); err != nil {
			return nil, fmt.Errorf("output of the console consumer: %q: %w", text, err)
		}
		if f[3] != "NO_HEADERS" {
			for h := range strings.SplitSeq(f[3], headerEnd) {
				k, v, _ := strings.Cut(h, ":")
				r.Headers = append(r.Headers, oracle.Header{Key: k, Value: nullable(v)})
			}
		}
		rs = append(rs, r)
	}
	return rs, nil
}

func nullable(s string) []byte {
	if s == nullWord {
		return nil
	}
	return []byte(s)
}

// ConsoleWrite writes records to a topic by Kafka's own console producer,
// which chooses the partition by the key, and the timestamp. codec is none, gzip, snappy, lz4 or
// zstd. A record's headers, key and value must be text without tabs and newlines,
// its headers without commas and colons.
func (c *Cluster) ConsoleWrite(ctx context.Context, topic, codec string, records []oracle.Record) error {
	class := "org.apache.kafka.tools.ConsoleProducer"
	if strings.HasPrefix(c.options.Version, "3.") {
		class = "kafka.tools.ConsoleProducer"
	}
	word := func(b []byte) string {
		if b == nil {
			return nullWord
		}
		return string(b)
	}
	var in bytes.Buffer
	for _, r := range records {
		var hs []string
		for _, h := range r.Headers {
			hs = append(hs, h.Key+":"+word(h.Value))
		}
		headers := strings.Join(hs, ",")
		if len(hs) == 0 {
			headers = nullWord
		}
		fmt.Fprintf(&in, "%s\t%s\t%s\n", headers, word(r.Key), word(r.Value))
	}
	cmd := c.JavaCommand(ctx, class, "--bootstrap-server", strings.Join(c.Brokers, ","), "--topic", topic,
		"--compression-codec", codec, "--property", "parse.key=true", "--property", "parse.headers=true",
		"--property", "null.marker="+nullWord)
	var out bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = &in, &out, &out
	if err := child.Run(cmd); err != nil {
		return fmt.Errorf("console producer: %w: %s", err, out.Bytes())
	}
	if bytes.Contains(out.Bytes(), []byte("rror")) { // it ends with 0 even when it could not send
		return fmt.Errorf("console producer: %s", out.Bytes())
	}
	return nil
}

// DumpLog returns what Kafka's own tool finds in a partition's log on a node: every
// batch with its producer id, epoch, sequence and CRC, decoded to the records. It
// fails on a log that Kafka cannot read.
func (c *Cluster) DumpLog(ctx context.Context, id int, topic string, partition int) (string, error) {
	files, err := filepath.Glob(filepath.Join(c.nodes[id-1].dir, "data", fmt.Sprintf("%s-%d", topic, partition), "*.log"))
	if err != nil || len(files) == 0 {
		return "", fmt.Errorf("log of %s/%d on node %d: none (%w)", topic, partition, id, os.ErrNotExist)
	}
	out, err := c.java(ctx, "kafka.tools.DumpLogSegments", "--deep-iteration", "--print-data-log", "--files", strings.Join(files, ","))
	return string(out), err
}
