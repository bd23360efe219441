package cli

import (
	"context"
	"iter"
	"os"
	"path/filepath"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/spf13/pflag"

	source "github.com/elbo-stream/elbo/sources/parquet"
	"github.com/elbo-stream/elbo/vae/train"
)

// inputFlags are the flags of every verb that reads Parquet files.
type inputFlags struct {
	paths   []string
	columns []string
	ignore  []string
	hive    bool
}

func (f *inputFlags) add(flags *pflag.FlagSet) {
	flags.StringArrayVarP(&f.paths, "input", "i", nil, "Parquet file, folder or glob; may be given more than once")
	flags.StringSliceVar(&f.columns, "columns", nil, "read these columns only")
	flags.StringSliceVar(&f.ignore, "ignore", nil, "leave these columns out")
	flags.BoolVar(&f.hive, "hive", false, "make string columns of the key=value folders in the paths")
}

// open lists the files and reads their schemas.
func (a *app) open(f inputFlags, batchRows int) (*source.Source, error) {
	if len(f.paths) == 0 {
		return nil, usage("no input: give -i FILE.parquet (or a folder, or a glob in quotes)")
	}
	return source.New(source.Config{Paths: f.paths, Columns: f.columns, Ignore: f.ignore, BatchRows: batchRows, Hive: f.hive, Allocator: a.mem, Log: a.log})
}

// inputAt returns the first input that an overwritten output would destroy: the
// output itself, or a file of the output's folder.
func inputAt(paths []string, out string) string {
	target, err := os.Stat(out)
	if err != nil {
		return "" // nothing is there
	}
	for _, pattern := range paths {
		found, err := filepath.Glob(pattern)
		if err != nil || found == nil {
			found = []string{pattern}
		}
		for _, path := range found {
			for _, at := range []string{path, filepath.Dir(path)} {
				if in, err := os.Stat(at); err == nil && os.SameFile(in, target) {
					return path
				}
			}
		}
	}
	return ""
}

// trainingData gives a Parquet source to package train, a row group a unit.
type trainingData struct {
	src   *source.Source
	units []source.Unit
}

func (d *trainingData) Schema(ctx context.Context) (*arrow.Schema, error) { return d.src.Schema(ctx) }

func (d *trainingData) Units(ctx context.Context) ([]int64, error) {
	if d.units == nil {
		units, err := d.src.Units(ctx)
		if err != nil {
			return nil, err
		}
		d.units = units
	}
	rows := make([]int64, len(d.units))
	for i, u := range d.units {
		rows[i] = u.Rows
	}
	return rows, nil
}

func (d *trainingData) Read(ctx context.Context, unit int) iter.Seq2[arrow.Record, error] {
	return func(yield func(arrow.Record, error) bool) {
		for b, err := range d.src.ReadUnit(ctx, d.units[unit]) {
			if err != nil {
				yield(nil, err)
				return
			}
			more := yield(b.Record, nil)
			b.Release()
			if !more {
				return
			}
		}
	}
}

var _ train.Data = (*trainingData)(nil)

// castNote says which model columns lose precision on their way to float32.
func castNote(schema *arrow.Schema, columns []string) (n int) {
	for _, name := range columns {
		for _, i := range schema.FieldIndices(name) {
			switch schema.Field(i).Type.ID() {
			case arrow.FLOAT64, arrow.INT64, arrow.UINT64, arrow.INT32, arrow.UINT32:
				n++
			}
		}
	}
	return n
}
