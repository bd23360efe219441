package kafka_test

import (
	"bytes"
	stdgzip "compress/gzip"
	"encoding/hex"
	"errors"
	"io"
	"testing"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/twmb/franz-go/pkg/kgo"
	"pgregory.net/rapid"

	"github.com/elbo-stream/elbo/internal/kafka"
)

// compressible draws bytes from none to a few blocks, of which some repeat.
func compressible(t *rapid.T) []byte {
	var b []byte
	for range rapid.IntRange(0, 6).Draw(t, "pieces") {
		piece := rapid.SliceOfN(rapid.Byte(), 0, 200).Draw(t, "piece")
		b = append(b, bytes.Repeat(piece, rapid.SampledFrom([]int{1, 3, 400}).Draw(t, "times"))...)
	}
	return b
}

// TestDecompressForeign reads what others write, with every option that changes the
// bytes.
func TestDecompressForeign(t *testing.T) {
	lz4With := func(opts ...lz4.Option) func([]byte) []byte {
		return func(b []byte) []byte {
			var out bytes.Buffer
			w := lz4.NewWriter(&out)
			if err := w.Apply(opts...); err != nil {
				panic(err)
			}
			_, _ = w.Write(b)
			_ = w.Close()
			return out.Bytes()
		}
	}
	zstdWith := func(stream bool, opts ...zstd.EOption) func([]byte) []byte {
		return func(b []byte) []byte {
			var out bytes.Buffer
			w, err := zstd.NewWriter(&out, append(opts, zstd.WithEncoderConcurrency(1), zstd.WithZeroFrames(true))...)
			if err != nil {
				panic(err)
			}
			if !stream {
				return w.EncodeAll(b, nil)
			}
			_, _ = w.Write(b) // without the content's size, as Java has it
			_ = w.Close()
			return out.Bytes()
		}
	}
	gzipWith := func(level int) func([]byte) []byte {
		return func(b []byte) []byte {
			var out bytes.Buffer
			w, _ := stdgzip.NewWriterLevel(&out, level)
			_, _ = w.Write(b)
			_ = w.Close()
			return out.Bytes()
		}
	}
	franzWith := func(c kgo.CompressionCodec) func([]byte) []byte {
		return func(b []byte) []byte {
			k, err := kgo.DefaultCompressor(c)
			if err != nil {
				panic(err)
			}
			out, _ := k.Compress(new(bytes.Buffer), b)
			return bytes.Clone(out)
		}
	}
	for _, c := range []struct {
		name  string
		codec kafka.Compression
		pack  func([]byte) []byte
	}{
		{"gzip", kafka.Gzip, gzipWith(6)},
		{"gzip stored", kafka.Gzip, gzipWith(0)},
		{"gzip in two members", kafka.Gzip, func(b []byte) []byte { return append(gzipWith(6)(b[:len(b)/2]), gzipWith(1)(b[len(b)/2:])...) }},
		{"gzip by franz-go", kafka.Gzip, franzWith(kgo.GzipCompression())},
		{"snappy, one block", kafka.Snappy, func(b []byte) []byte { return s2.EncodeSnappy(nil, b) }},
		{"snappy by franz-go", kafka.Snappy, franzWith(kgo.SnappyCompression())},
		{"lz4 by franz-go", kafka.Lz4, franzWith(kgo.Lz4Compression())},
		{"lz4 64 KiB", kafka.Lz4, lz4With(lz4.BlockSizeOption(lz4.Block64Kb))},
		{"lz4 256 KiB, all checksums", kafka.Lz4, lz4With(lz4.BlockSizeOption(lz4.Block256Kb), lz4.BlockChecksumOption(true), lz4.ChecksumOption(true))},
		{"lz4 with its size", kafka.Lz4, func(b []byte) []byte { return lz4With(lz4.SizeOption(uint64(len(b))), lz4.ChecksumOption(false))(b) }},
		{"lz4 in two frames", kafka.Lz4, func(b []byte) []byte { return append(lz4With()(b[:len(b)/2]), lz4With()(b[len(b)/2:])...) }},
		{"zstd by franz-go", kafka.Zstd, franzWith(kgo.ZstdCompression())},
		{"zstd as a stream", kafka.Zstd, zstdWith(true)},
		{"zstd with a checksum", kafka.Zstd, zstdWith(false, zstd.WithEncoderCRC(true))},
		{"zstd best", kafka.Zstd, zstdWith(false, zstd.WithEncoderLevel(zstd.SpeedBestCompression))},
	} {
		t.Run(c.name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				want := compressible(t)
				got, err := kafka.Decompress(c.codec, c.pack(want), 10<<20)
				if err != nil || !bytes.Equal(got, want) {
					t.Fatalf("%d bytes are unpacked to %d: %v", len(want), len(got), err)
				}
			})
		})
	}
}

// TestDecompressLinkedLz4 reads a frame whose second block reaches into the first,
// which pierrec's writer never makes; it was written by hand from the format's text:
// "abcdefgh" stored, then a match of 12 at a distance of 8 and five literals.
func TestDecompressLinkedLz4(t *testing.T) {
	frame, err := hex.DecodeString("04224d18" + "4040" + "c0" +
		"08000080" + "6162636465666768" +
		"09000000" + "08" + "0800" + "50" + "7778797a21" +
		"00000000")
	if err != nil {
		t.Fatal(err)
	}
	got, err := kafka.Decompress(kafka.Lz4, frame, 1000)
	if want := "abcdefghabcdefghabcdwxyz!"; string(got) != want || err != nil {
		t.Errorf("%q, %v; want %q", got, err, want)
	}
}

// TestCompressForeign lets others read what is written here.
func TestCompressForeign(t *testing.T) {
	read := map[kafka.Compression]func([]byte) ([]byte, error){
		kafka.Gzip: func(b []byte) ([]byte, error) {
			r, err := stdgzip.NewReader(bytes.NewReader(b))
			if err != nil {
				return nil, err
			}
			return io.ReadAll(r)
		},
		kafka.Snappy: func(b []byte) ([]byte, error) { return kgo.DefaultDecompressor().Decompress(b, kgo.CodecSnappy) },
		kafka.Lz4:    func(b []byte) ([]byte, error) { return io.ReadAll(lz4.NewReader(bytes.NewReader(b))) },
		kafka.Zstd:   func(b []byte) ([]byte, error) { return kgo.DefaultDecompressor().Decompress(b, kgo.CodecZstd) },
	}
	for codec, read := range read {
		t.Run(codec.String(), func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				want := append(compressible(t), 0) // franz-go reads no empty snappy
				packed, err := kafka.Compress(codec, want)
				if err != nil {
					t.Fatal(err)
				}
				got, err := read(packed)
				if err != nil || !bytes.Equal(got, want) {
					t.Fatalf("%d bytes are read as %d: %v", len(want), len(got), err)
				}
			})
		})
	}
}

// TestDecompressBounds requires that bombs end at the limit, and that the limit
// itself is allowed.
func TestDecompressBounds(t *testing.T) {
	const limit = 1 << 20
	for codec := kafka.None; codec <= kafka.Zstd; codec++ {
		t.Run(codec.String(), func(t *testing.T) {
			for _, c := range []struct {
				size int
				want error
			}{{limit, nil}, {limit + 1, kafka.ErrTooLarge}, {64 * limit, kafka.ErrTooLarge}} {
				packed, err := kafka.Compress(codec, make([]byte, c.size))
				if err != nil {
					t.Fatal(err)
				}
				got, err := kafka.Decompress(codec, packed, limit)
				if !errors.Is(err, c.want) {
					t.Errorf("%d bytes: error %v, want %v", c.size, err, c.want)
				}
				if err == nil && len(got) != c.size || cap(got) > 8*limit+c.size*int(1-min(1, codec)) {
					t.Errorf("%d bytes: %d came, in %d", c.size, len(got), cap(got))
				}
			}
		})
	}
}

// FuzzDecompress requires of any bytes that unpacking ends, within the limit, and
// that whatever comes is what other readers say as well.
func FuzzDecompress(f *testing.F) {
	for codec := kafka.None; codec <= kafka.Zstd; codec++ {
		for _, text := range []string{"", "a", "some text, some text, some text"} {
			packed, err := kafka.Compress(codec, []byte(text))
			if err != nil {
				f.Fatal(err)
			}
			f.Add(int8(codec), packed)
		}
	}
	f.Add(int8(kafka.Snappy), s2.EncodeSnappy(nil, []byte("plain")))
	f.Fuzz(func(t *testing.T, codec int8, packed []byte) {
		const limit = 1 << 16
		got, err := kafka.Decompress(kafka.Compression(codec), packed, limit)
		if len(got) > limit {
			t.Fatalf("%d bytes came", len(got))
		}
		if err != nil || len(packed) == 0 {
			return
		}
		switch kafka.Compression(codec) {
		case kafka.Gzip:
			r, err := stdgzip.NewReader(bytes.NewReader(packed))
			if err != nil {
				t.Fatal(err)
			}
			if want, err := io.ReadAll(r); err != nil || !bytes.Equal(got, want) {
				t.Fatalf("%q, and the standard library says %q, %v", got, want, err)
			}
		case kafka.Lz4:
			// It checks checksums, so its errors prove nothing.
			if want, err := io.ReadAll(lz4.NewReader(bytes.NewReader(packed))); err == nil && !bytes.Equal(got, want) {
				t.Fatalf("%q, and pierrec's reader says %q", got, want)
			}
		}
	})
}
