package cli

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	"github.com/elbo-stream/elbo/vae"
)

// build returns the revision that the program was built from, "none" without.
func build() string {
	revision, dirty := "none", ""
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			switch s.Key {
			case "vcs.revision":
				revision = s.Value[:min(12, len(s.Value))]
			case "vcs.modified":
				if s.Value == "true" {
					dirty = "+"
				}
			}
		}
	}
	return revision + dirty
}

// CreatedBy is the created_by of the Parquet files that the program writes.
func CreatedBy() string { return fmt.Sprintf("elbo version %s (build %s)", Version, build()) }

func (a *app) version() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			kernel, wrong := vae.Kernel()
			if wrong != nil { // the rest is still worth knowing
				kernel = "none"
			}
			_, err := fmt.Fprintf(a.out, "elbo %s\nbuild   %s\ngo      %s %s/%s\nkernel  %s (of %s)\n",
				Version, build(), runtime.Version(), runtime.GOOS, runtime.GOARCH, kernel, strings.Join(vae.KernelLevels(), ", "))
			if err == nil && wrong != nil {
				err = &exitError{ExitUsage, wrong}
			}
			return err
		},
	}
}

func (a *app) completion() *cobra.Command {
	return &cobra.Command{
		Use: "completion bash|zsh|fish|powershell", Short: "Print a completion script for a shell",
		Example: "  source <(elbo completion bash)",
		Args:    cobra.ExactArgs(1), ValidArgs: []string{"bash", "zsh", "fish", "powershell"},
		RunE: func(cmd *cobra.Command, args []string) error {
			switch root := cmd.Root(); args[0] {
			case "bash":
				return root.GenBashCompletionV2(a.out, true)
			case "zsh":
				return root.GenZshCompletion(a.out)
			case "fish":
				return root.GenFishCompletion(a.out, true)
			case "powershell":
				return root.GenPowerShellCompletionWithDesc(a.out)
			}
			return usage("completion for %q: want bash, zsh, fish or powershell", args[0])
		},
	}
}

// joinClose closes c and adds its error to err.
func joinClose(err error, c io.Closer) error { return errors.Join(err, c.Close()) }
