package oracle

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strconv"
	"strings"
)

// ErrNoKcat says that kcat is not installed (Debian: kcat).
var ErrNoKcat = errors.New("kcat is not installed")

// recordEnd parts kcat's records; headers, which have no length, end with it.
const recordEnd = "\x1e\n"

// Kcat returns every committed record of a topic as kcat, which is librdkafka,
// reads them. Header values with a comma in them are misread, since kcat joins
// headers by one; a header value "NULL" is taken as null, which it prints so.
func Kcat(ctx context.Context, brokers []string, topic string) ([]Record, error) {
	out, err := kcat(ctx, nil, "-C", "-b", strings.Join(brokers, ","), "-t", topic, "-o", "beginning", "-e", "-q",
		"-X", "isolation.level=read_committed", "-X", "check.crcs=true",
		"-f", `%p %o %T %K %S\n%k%s%h`+recordEnd)
	if err != nil {
		return nil, err
	}
	rs, err := parseKcat(bytes.NewReader(out), topic)
	if err != nil {
		return nil, fmt.Errorf("output of kcat: %w", err)
	}
	return tidy(rs), nil
}

// KcatProduce writes lines, each a record "key|value", by kcat with a codec: none,
// gzip, snappy, lz4 or zstd. Headers are those of all records.
func KcatProduce(ctx context.Context, brokers []string, topic string, partition int32, codec string, headers []Header, lines []string) error {
	args := []string{"-P", "-b", strings.Join(brokers, ","), "-t", topic, "-p", strconv.Itoa(int(partition)), "-K", "|",
		"-X", "compression.codec=" + codec, "-X", "linger.ms=50"}
	for _, h := range headers {
		args = append(args, "-H", h.Key+"="+string(h.Value))
	}
	_, err := kcat(ctx, strings.NewReader(strings.Join(lines, "\n")+"\n"), args...)
	return err
}

func kcat(ctx context.Context, in io.Reader, args ...string) ([]byte, error) {
	path, err := exec.LookPath("kcat")
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoKcat, err)
	}
	var out, log bytes.Buffer
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = in, &out, &log
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("kcat: %w: %s", err, bytes.TrimSpace(log.Bytes()))
	}
	return out.Bytes(), nil
}

func parseKcat(in io.Reader, topic string) (rs []Record, err error) {
	b := bufio.NewReader(in)
	for {
		line, err := b.ReadString('\n')
		if err == io.EOF && line == "" {
			return rs, nil
		}
		r := Record{Topic: topic}
		var key, value int
		if _, err := fmt.Sscan(line, &r.Partition, &r.Offset, &r.Timestamp, &key, &value); err != nil {
			return nil, fmt.Errorf("record %d: %q: %w", len(rs), line, err)
		}
		if r.Key, err = take(b, key); err == nil {
			r.Value, err = take(b, value)
		}
		var headers string
		for err == nil && !strings.HasSuffix(headers, recordEnd) {
			line, err = b.ReadString('\n')
			headers += line
		}
		if err != nil {
			return nil, fmt.Errorf("record %d: %w", len(rs), err)
		}
		for h := range strings.SplitSeq(strings.TrimSuffix(headers, recordEnd), ",") {
			k, v, ok := strings.Cut(h, "=")
			switch {
			case ok && v == "NULL":
				r.Headers = append(r.Headers, Header{Key: k})
			case ok:
				r.Headers = append(r.Headers, Header{k, []byte(v)})
			}
		}
		rs = append(rs, r)
	}
}

// take reads n bytes; a negative n is null.
func take(b io.Reader, n int) ([]byte, error) {
	if n < 0 {
		return nil, nil
	}
	v := make([]byte, n)
	_, err := io.ReadFull(b, v)
	return v, err
}
