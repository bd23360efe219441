package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	sink "github.com/elbo-stream/elbo/sinks/parquet"
)

func (a *app) verify() *cobra.Command {
	var asJSON bool
	var o sink.VerifyOptions
	cmd := &cobra.Command{
		Use: "verify DIR", Short: "Look for gaps, doubles and damage in what an exactly-once Parquet sink wrote",
		Long: `Look for gaps, doubles and damage in what an exactly-once Parquet sink wrote.

Verify looks at every file below DIR, the path of an exactly-once Parquet sink or a
folder in it, and says which rows of each partition are there: once, twice, or not.
It changes nothing, and a pipeline may write there meanwhile. Dead letters are
compared with the rows when their folder is given, or is DIR-dead.

The exit code is 1 when something is wrong. Temporary files are no fault: they are
of a run that is under way, or of one that was killed, and are removed later.`,
		Example: "  elbo verify scores\n  elbo verify scores/payments --deep\n  elbo verify scores --json | jq .partitions",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := a.untilDrain(cmd.Context())
			defer stop()
			if err := defaultDead(args[0], &o.Dead); err != nil {
				return err
			}
			r, err := sink.Verify(ctx, args[0], o)
			if errors.Is(err, sink.ErrNoRanges) {
				return usage("%w: name the path of a parquet sink with delivery: exactly_once", err)
			}
			if err != nil {
				return err
			}
			if asJSON {
				e := json.NewEncoder(a.out)
				e.SetIndent("", "  ")
				err = e.Encode(r)
			} else {
				err = a.verifyText(r, o.Dead != "")
			}
			if n := len(r.Faults()); err == nil && n > 0 {
				err = fmt.Errorf("%s is not whole: %s", args[0], plural(n, "fault"))
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print everything as JSON")
	cmd.Flags().BoolVar(&o.Deep, "deep", false, "decode every page and check its CRC, not only the footers")
	cmd.Flags().StringVar(&o.Dead, "dead", "", "the folder of the dead letters (DIR-dead if that is there)")
	return cmd
}

// defaultDead fills in the folder of the dead letters, and checks one that was given.
func defaultDead(dir string, dead *string) error {
	given := *dead != ""
	if !given {
		*dead = filepath.Clean(dir) + "-dead"
	}
	_, err := os.Stat(*dead)
	if err != nil && given {
		return usage("--dead %s: %w", *dead, err)
	}
	if err != nil {
		*dead = ""
	}
	return nil
}

func (a *app) verifyText(r *sink.Report, dead bool) error {
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	head := "PARTITION\tFILES\tROWS\tFROM\tTO\t"
	if dead {
		head += "DEAD\t"
	}
	fmt.Fprintln(w, head+"STATE")
	files, rows := 0, int64(0)
	for _, p := range r.Partitions {
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%d\t", p.Partition, count(int64(p.Files)), count(p.Rows), p.First, p.Next-1)
		if dead {
			fmt.Fprintf(w, "%s\t", count(p.LetterRows))
		}
		fmt.Fprintln(w, state(p))
		files += p.Files
		rows += p.Rows
	}
	if err := w.Flush(); err != nil {
		return err
	}
	faults := r.Faults()
	if len(faults) > 0 {
		fmt.Fprintln(a.out)
	}
	const most = 100
	for i, f := range faults {
		if i == most {
			fmt.Fprintf(a.out, "... and %d more (see --json)\n", len(faults)-most)
			break
		}
		fmt.Fprintf(a.out, "%s: %s: %s\n", f.Kind, f.Path, strings.TrimPrefix(f.Detail, f.Path+": "))
	}
	if n := len(r.Temporary); n > 0 {
		a.say("%s of a run that is under way or was killed, which the next run looks after", plural(n, "temporary file"))
	}
	if r.Whole {
		a.say("whole: %s, %s, %s rows", plural(len(r.Partitions), "partition"), plural(files, "file"), count(rows))
	}
	return nil
}

// state says in a few words what is wrong with a partition.
func state(p sink.PartitionReport) string {
	var words []string
	for _, k := range []struct{ kind, word string }{{sink.FaultUnreadable, "unreadable file"}, {sink.FaultGap, "gap"}, {sink.FaultOverlap, "overlap"},
		{sink.FaultName, "wrong name"}, {sink.FaultLetters, "dead-letter fault"}} {
		n := 0
		for _, f := range p.Faults {
			if f.Kind == k.kind {
				n++
			}
		}
		if n > 0 {
			words = append(words, plural(n, k.word))
		}
	}
	if len(words) == 0 {
		words = append(words, "whole")
	}
	if p.Schemas > 1 {
		words = append(words, plural(p.Schemas, "schema"))
	}
	return strings.Join(words, ", ")
}

func plural(n int, word string) string {
	if n != 1 {
		word += "s"
	}
	return count(int64(n)) + " " + word
}
