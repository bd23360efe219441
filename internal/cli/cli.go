// Package cli holds the verbs of elbo, one file each.
//
//	os.Exit(cli.Main(os.Args[1:], os.Stdout, os.Stderr))
//
// Data goes to stdout, everything else to stderr. An error has place, fact and
// next step; the exit code says what kind it was (see the Exit constants). The
// mistake to avoid in a new verb is to print a result to stderr or a message to
// stdout: scripts read one of them.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/apache/arrow/go/v15/arrow/memory"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"github.com/elbo-stream/elbo/internal/durable"
	"github.com/elbo-stream/elbo/internal/hint"
	"github.com/elbo-stream/elbo/pipeline"
	"github.com/elbo-stream/elbo/pipeline/config"
	sink "github.com/elbo-stream/elbo/sinks/parquet"
	"github.com/elbo-stream/elbo/vae"
)

// The exit codes.
const (
	ExitDone        = 0
	ExitFailed      = 1
	ExitUsage       = 2
	ExitConfig      = 3 // bad config, model or schema
	ExitAnomalies   = 4 // only with --fail-on-anomaly
	ExitInterrupted = 130
)

// Version is the program's version; releases set it when they are linked.
var Version = "0.1.0-dev"

// app is what the verbs share.
type app struct {
	out, err io.Writer
	mem      memory.Allocator
	// drain is closed by the first signal; quit's context ends with the second.
	drain <-chan struct{}
	quiet bool
	log   *slog.Logger
	code  int // exit code of a verb that succeeded
}

// exitError is an error with its exit code.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

func usage(format string, args ...any) error {
	return &exitError{ExitUsage, fmt.Errorf(format, args...)}
}

func badConfig(err error) error { return &exitError{ExitConfig, err} }

// Main runs the program with its arguments (without the program's name) and
// returns the exit code. The first interrupt drains, the second quits.
func Main(args []string, stdout, stderr io.Writer) int {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	drain := make(chan struct{})
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	finished := make(chan struct{})
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		for n := 0; ; n++ {
			select {
			case <-finished:
				return
			case <-signals:
				if n == 0 {
					fmt.Fprintln(stderr, "elbo: stopping after what is under way (again to quit now)")
					close(drain)
				} else {
					cancel()
				}
			}
		}
	}()
	a := &app{out: stdout, err: stderr, mem: memory.DefaultAllocator, drain: drain}
	code := a.run(ctx, args)
	signal.Stop(signals)
	close(finished)
	<-stopped
	return code
}

// run executes one command line.
func (a *app) run(ctx context.Context, args []string) int {
	root := a.root()
	root.SetArgs(args)
	root.SetOut(a.out)
	root.SetErr(a.err)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return a.code
	}
	code := exitCode(err)
	if code == ExitInterrupted {
		fmt.Fprintf(a.err, "elbo: %s: interrupted: %v\n", cmd.Name(), err)
		return code
	}
	fmt.Fprintln(a.err, message(cmd, err))
	if code == ExitUsage {
		fmt.Fprintf(a.err, "See '%s --help'.\n", cmd.CommandPath())
	}
	return code
}

// message puts the verb before an error; the faults of a config file begin with
// their place and stand as they are.
func message(cmd *cobra.Command, err error) string {
	var faults config.Faults
	if errors.As(err, &faults) {
		return faults.Error()
	}
	place := "elbo: "
	if cmd.HasParent() {
		place = "elbo: " + cmd.Name() + ": "
	}
	text := err.Error()
	if errors.Is(err, syscall.ENOSPC) && !strings.Contains(text, "free some space") {
		text += ": free some space or write elsewhere"
	}
	return place + strings.ReplaceAll(text, "\n", "\n"+place)
}

func exitCode(err error) int {
	var exit *exitError
	var schema *vae.SchemaError
	var faults config.Faults
	var bind *pipeline.BindError
	switch {
	case errors.As(err, &exit):
		return exit.code
	case errors.Is(err, context.Canceled):
		return ExitInterrupted
	case errors.As(err, &schema), errors.As(err, &faults), errors.As(err, &bind):
		return ExitConfig
	case errors.Is(err, durable.ErrExists), errors.Is(err, sink.ErrExists):
		return ExitUsage
	}
	return ExitFailed
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "elbo",
		Short: "Rebuild rows with a variational autoencoder and score how surprising each is",
		Example: `  elbo demo
  elbo train -i 'day/*.parquet' -o pay.elbo --ignore label
  elbo score -m pay.elbo -i 'new/*.parquet' -o scores/
  elbo eval  -m pay.elbo -i test.parquet --label label`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          knownVerb,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.PersistentFlags().BoolVarP(&a.quiet, "quiet", "q", false, "print errors only")
	level := root.PersistentFlags().String("log-level", "warn", "debug, info, warn or error")
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error {
		if err := a.openLog(*level); err != nil {
			return err
		}
		return kernelFor(cmd)
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return &exitError{ExitUsage, fmt.Errorf("%w%s", err, flagHint(cmd, err))}
	})
	root.CompletionOptions.DisableDefaultCmd = true
	root.AddCommand(a.demo(), a.train(), a.score(), a.eval(), a.inspect(), a.calibrate(), a.compress(), a.bench(), a.runVerb(), a.check(),
		a.list(), a.schema(), a.verify(), a.version(), a.completion())
	for _, c := range root.Commands() {
		if args := c.Args; args != nil {
			c.Args = func(cmd *cobra.Command, have []string) error {
				if err := args(cmd, have); err != nil {
					return &exitError{ExitUsage, err}
				}
				return nil
			}
		}
	}
	return root
}

// knownVerb refuses what is not a verb, with the one that was meant.
func knownVerb(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	var verbs []string
	for _, c := range cmd.Commands() {
		verbs = append(verbs, c.Name())
	}
	return usage("unknown verb %q%s", args[0], hint.DidYouMean(args[0], verbs))
}

// kernelFor refuses to compute when ELBO_KERNEL asks for kernels that are not
// there; the verbs that only tell go on.
func kernelFor(cmd *cobra.Command) error {
	switch cmd.Name() {
	case "elbo", "help", "list", "schema", "verify", "completion", "version":
		return nil
	}
	if _, err := vae.Kernel(); err != nil {
		return &exitError{ExitUsage, err}
	}
	return nil
}

func (a *app) openLog(level string) error {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return usage("--log-level %q: want debug, info, warn or error", level)
	}
	if a.quiet {
		l = slog.LevelError
	}
	o := &slog.HandlerOptions{Level: l}
	if a.terminal() {
		a.log = slog.New(slog.NewTextHandler(a.err, o))
	} else {
		a.log = slog.New(slog.NewJSONHandler(a.err, o))
	}
	return nil
}

// terminal says whether stderr is one.
func (a *app) terminal() bool {
	f, ok := a.err.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// width is how many columns stdout has; 100 when it is no terminal.
func (a *app) width() int {
	if f, ok := a.out.(*os.File); ok {
		if w, _, err := term.GetSize(int(f.Fd())); err == nil && w >= 40 {
			return min(w, 160)
		}
	}
	return 100
}

// say prints a line for people to stderr.
func (a *app) say(format string, args ...any) {
	if !a.quiet {
		fmt.Fprintf(a.err, format+"\n", args...)
	}
}

// warn prints a warning to stderr, even when quiet is asked for.
func (a *app) warn(format string, args ...any) { fmt.Fprintf(a.err, "warning: "+format+"\n", args...) }

// flagHint suggests the flag that was meant.
func flagHint(cmd *cobra.Command, err error) string {
	var unknown *pflag.NotExistError
	if !errors.As(err, &unknown) {
		return ""
	}
	names := []string{}
	cmd.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
	if near := hint.Nearest(unknown.GetSpecifiedName(), names); near != "" {
		return fmt.Sprintf(" (did you mean --%s?)", near)
	}
	return ""
}

// untilDrain ends a context at the first signal, for verbs that have nothing to
// drain.
func (a *app) untilDrain(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		select {
		case <-a.drain:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}
