package cli

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/elbo-stream/elbo/vae"
)

func (a *app) inspect() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "inspect MODEL", Short: "Show what is in a model file", Example: "  elbo inspect pay.elbo",
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			m, err := a.load(args[0])
			if err != nil {
				return err
			}
			if asJSON {
				e := json.NewEncoder(a.out)
				e.SetIndent("", "  ")
				return e.Encode(struct {
					Model       string           `json:"model"`
					Size        vae.Size         `json:"size"`
					Compression *vae.Compression `json:"compression,omitempty"`
					Members     []vae.Member     `json:"members"`
					Spec        vae.Spec         `json:"spec"`
					Calibration *vae.Calibration `json:"calibration"`
					Training    vae.Training     `json:"training"`
				}{m.ID(), m.Size(), m.Compression, m.Members, m.Spec, m.Calibration, m.Training})
			}
			return a.inspectText(m)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print everything as JSON")
	return cmd
}

func (a *app) inspectText(m *vae.Model) error {
	s, t, c := m.Size(), &m.Training, m.Calibration
	fmt.Fprintf(a.out, "model        %s\n", m.ID())
	fmt.Fprintf(a.out, "network      %s\n", networkLine(&m.Spec, s))
	if mix := m.Spec.Mixture; mix != nil {
		fmt.Fprintf(a.out, "mixture      %d groups, standard deviation %.3g\n", mix.Components, mix.SD)
	}
	fmt.Fprintf(a.out, "size         %s parameters, %s bytes, %s multiply-adds per row\n", count(int64(s.Parameters)), count(int64(s.Bytes)), count(int64(s.MultiplyAdds)))
	a.inspectCompression(m)
	fmt.Fprintf(a.out, "training     elbo %s, seed %d: %s rows (%s held out), %d steps of %d rows (best at %d, stopped by %s), %s at %g, beta %g\n",
		t.Version, t.Seed, count(t.Rows), count(t.HeldOut), t.Steps, t.Batch, t.BestStep, t.Stopped, t.Optimizer, t.Rate, t.Beta)
	fmt.Fprintf(a.out, "fit          recon %.4g nats on training rows, %.4g on held-out rows; KL %.4g nats\n", t.TrainRecon, t.HeldOutRecon, t.HeldOutKL)
	fmt.Fprintf(a.out, "latents      %d of %d active%s\n", t.ActiveLatents, m.Spec.Latent, latentLine(m))
	if t.Contamination > 0 {
		fmt.Fprintf(a.out, "left out     %s likely anomalies, for a contamination of %g\n", count(t.LeftOut), t.Contamination)
	}
	rule := fmt.Sprintf("for a target rate of %g", c.TargetRate)
	switch {
	case c.Rule == vae.BestF1:
		rule = "best F1 on labelled rows"
	case c.Rule != "":
		rule += ", by " + string(c.Rule)
	case c.Fixed:
		rule = "fixed"
	}
	from := fmt.Sprintf("%s held-out rows", count(c.Rows-c.Trained))
	if c.Trained > 0 {
		from += fmt.Sprintf(" and %s training rows that score alike", count(c.Trained))
	}
	fmt.Fprintf(a.out, "limit        %.6g nats, %s, from %s\n", c.Limit, rule, from)
	for i, w := range t.Warnings {
		if i == mostWarnings {
			fmt.Fprintf(a.out, "warning      %d more (see --json)\n", len(t.Warnings)-i)
			break
		}
		fmt.Fprintf(a.out, "warning      %s\n", w)
	}
	fmt.Fprintln(a.out)
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "COLUMN\tTYPE\tKIND\tHEAD\tPREPROCESSING\tHELD-OUT NATS")
	const most = 60
	for i := range m.Spec.Columns {
		if i == most {
			fmt.Fprintf(w, "... and %d more (see --json)\n", len(m.Spec.Columns)-most)
			break
		}
		col := &m.Spec.Columns[i]
		fit := "-"
		if i < len(t.Columns) {
			fit = fmt.Sprintf("%.3f", t.Columns[i].HeldOut)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", col.Name, col.Type, col.Kind, col.Head, preprocessing(col), fit)
	}
	return w.Flush()
}

// inspectCompression says what a model was made from, and what became of its weights.
func (a *app) inspectCompression(m *vae.Model) {
	c := m.Compression
	if c == nil {
		return
	}
	name, digest, _ := strings.Cut(c.Parent, "@")
	fmt.Fprintf(a.out, "compressed   from %s@%s by %s\n", name, digest[:min(12, len(digest))], c.Recipe)
	g := c.Gate
	labels := ""
	if l := g.Labels; l != nil {
		labels = fmt.Sprintf("; AUROC %.4f (parent %.4f), average precision %.4f (parent %.4f) on %s labelled rows", l.AUROC, l.ParentAUROC, l.AP, l.ParentAP, count(l.Rows))
	}
	fmt.Fprintf(a.out, "gate         rank correlation %.5f, %.3g%% of %s rows change their alert%s\n", g.Spearman, 100*g.Changed, count(g.Rows), labels)
	for _, f := range g.Failed {
		fmt.Fprintf(a.out, "FORCED       it failed the gate: %s\n", f)
	}
	for _, f := range c.Forms {
		what := string(f.Precision)
		if f.WeightsOnly {
			what += " weights, multiplied as float32"
		}
		if f.Pattern != vae.Dense {
			what += fmt.Sprintf(", %.3g%% of them in %s", 100*m.Density(f.Layer), map[vae.Pattern]string{vae.Blocks: "blocks of four neurons", vae.Weights: "no pattern"}[f.Pattern])
		}
		fmt.Fprintf(a.out, "  %-10s %s\n", f.Layer, what)
	}
}

// latentLine says what the busiest latents depend on.
func latentLine(m *vae.Model) string {
	names, order := m.Members[0].DependsOn, make([]int, len(m.Training.LatentKL))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(m.Training.LatentKL[b], m.Training.LatentKL[a]) })
	var parts []string
	for _, l := range order {
		if l < len(names) && names[l] != "" && len(parts) < 3 {
			parts = append(parts, fmt.Sprintf("%d (%s)", l, names[l]))
		}
	}
	if parts == nil {
		return ""
	}
	return "; busiest: " + strings.Join(parts, ", ")
}

func networkLine(s *vae.Spec, size vae.Size) string {
	part := func(from int, layers []vae.Layer, to int) string {
		words := []string{fmt.Sprint(from)}
		for _, l := range layers {
			words = append(words, fmt.Sprint(l.Width))
		}
		return strings.Join(append(words, fmt.Sprint(to)), "-")
	}
	_, inputs := s.Inputs()
	activation := "linear"
	if len(s.Encoder) > 0 {
		activation = s.Encoder[0].Activation
	}
	return fmt.Sprintf("%s / %s, %s, latent %d", part(inputs, s.Encoder, 2*s.Latent), part(s.Latent, s.Decoder, size.Features), activation, s.Latent)
}

func preprocessing(c *vae.Column) string {
	var out string
	switch c.Kind {
	case vae.Categorical:
		out = fmt.Sprintf("%d levels and unseen", len(c.Levels))
	case vae.Vector:
		out = fmt.Sprintf("%s, width %d", c.Transform, c.Width)
	case vae.Timestamp:
		out = "cycles of " + strings.Join(c.Parts, ", ")
	case vae.Boolean:
		out = "0 or 1"
	default:
		out = string(c.Transform)
		if c.Transform != vae.Raw {
			out += fmt.Sprintf(" (mean %.4g, sd %.4g)", c.Mean[0], c.Scale[0])
		}
		if c.Constant[0] {
			out = fmt.Sprintf("constant %.6g in training", c.Mean[0])
			if c.Rare != nil && c.Rare[0] > 0 {
				out += fmt.Sprintf(", else at a rate of %.2g", c.Rare[0])
			}
		}
	}
	if c.Indicator {
		out += ", missing indicator"
	}
	return out
}
