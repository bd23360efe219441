package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// The bounds on a file. Aliases are followed, so that a small file can be a
// large one: visits counts every value looked at.
const (
	maxBytes  = 1 << 20
	maxDepth  = 32
	maxVisits = 100_000
	maxFaults = 200
)

// smallest is shown where a file says too little to point at anything.
const smallest = "; the smallest is\n\n" +
	"    source:\n      generate: {rows: 1000}\n" +
	"    sinks:\n      - parquet: {path: out/}\n"

// parseTree turns a file's bytes into its one mapping, or into faults.
func parseTree(file string, data []byte) (*yaml.Node, Faults) {
	whole := func(line, col int, format string, args ...any) Faults {
		return Faults{{File: file, Line: line, Col: col, Message: fmt.Sprintf(format, args...)}}
	}
	if len(data) > maxBytes {
		return nil, whole(0, 0, "the file is larger than %s, which no configuration needs; is it the right file?", ByteSize(maxBytes))
	}
	if bytes.HasPrefix(data, []byte("\xff\xfe")) || bytes.HasPrefix(data, []byte("\xfe\xff")) {
		return nil, whole(1, 1, "the file is UTF-16; save it as UTF-8")
	}
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	if line, col, r, bad := badCharacter(data); bad && r == utf8.RuneError {
		return nil, whole(line, col, "a byte that is not UTF-8; save the file as UTF-8")
	} else if bad {
		return nil, whole(line, col, "the control character %U; remove it", r)
	}

	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var doc, second yaml.Node
	if err := decoder.Decode(&doc); errors.Is(err, io.EOF) {
		return nil, whole(0, 0, "the file is empty%s", smallest)
	} else if err != nil {
		return nil, syntaxFaults(file, data, err)
	}
	if err := decoder.Decode(&second); err == nil {
		return nil, whole(second.Line, second.Column, "a second document begins here; one file is one pipeline: remove the line with --- or split the file")
	} else if !errors.Is(err, io.EOF) {
		return nil, syntaxFaults(file, data, err)
	}
	root := doc.Content[0]
	if root.Kind == yaml.ScalarNode && root.Tag == "!!null" {
		return nil, whole(0, 0, "the file is empty%s", smallest)
	}
	if root.Kind != yaml.MappingNode {
		return nil, whole(root.Line, root.Column, "must be keys with values, not %s%s", describe(root), smallest)
	}
	return root, nil
}

// badCharacter finds the first byte that is no UTF-8 (as utf8.RuneError) or the
// first control character, which the YAML reader would report without a place.
func badCharacter(data []byte) (line, col int, bad rune, found bool) {
	line, col = 1, 1
	for i := 0; i < len(data); {
		r, size := utf8.DecodeRune(data[i:])
		control := r < ' ' && r != '\t' && r != '\n' && r != '\r' || r >= 0x7f && r < 0xa0 && r != 0x85 ||
			r == 0xfeff || r == 0xfffe || r == 0xffff
		if control || r == utf8.RuneError && size == 1 {
			return line, col, r, true
		}
		col++
		if r == '\n' {
			line, col = line+1, 1
		}
		i += size
	}
	return 0, 0, 0, false
}

// yamlLine finds the line in a message of the YAML reader; read only.
var yamlLine = regexp.MustCompile(`line (\d+): `)

// yamlAdvice says in our words what the YAML reader's messages mean; read only.
var yamlAdvice = [...]struct{ says, means string }{
	{"mapping values are not allowed", `a colon where no key can be: indent the line as its neighbours, or put the value in quotes if it contains ": "`},
	{"did not find expected key", "the line does not fit those around it: indent it as its neighbours, and close every quote, [ and {"},
	{"did not find expected '-' indicator", `a list item must begin with "- " and be indented as its neighbours`},
	{"could not find expected ':'", `a key without a value: write "key: value", and close every quote, [ and {`},
	{"did not find expected ',' or ']'", "a list that begins with [ is not closed, or lacks a comma"},
	{"did not find expected ',' or '}'", "a map that begins with { is not closed, or lacks a comma"},
	{"found unexpected end of stream", "a quote is not closed"},
	{"did not find expected node content", "a value is missing, or a [ or { is not closed"},
	{"found character that cannot start any token", "a value cannot begin with @, `, % or a tab: put it in quotes"},
	{"found unknown escape character", `an unknown \ escape: in double quotes write \\ for a backslash, or use single quotes`},
	{"unknown anchor", "an alias (*name) without its anchor (&name) before it; a text that begins with * needs quotes"},
	{"block sequence entries are not allowed", `a list item ("- ") cannot stand here: put it on a line of its own`},
	{"exceeded max depth", "the file is nested too deeply"},
	{"did not find expected alphabetic or numeric character", "an anchor (&) or alias (*) without a name; a text that begins with & or * needs quotes"},
	{"contains itself", "an anchor that contains itself"},
	{"did not find expected <document start>", "the file goes on after the end of its document: a closing ] or } too many, or a line that is indented too little"},
}

// syntaxFaults explains an error of the YAML reader, which stops at its first.
// Tabs used for indentation are all listed, as they are the usual cause.
func syntaxFaults(file string, data []byte, err error) Faults {
	var faults Faults
	for i, text := range strings.Split(string(data), "\n") {
		indent := text[:len(text)-len(strings.TrimLeft(text, " \t"))]
		if tab := strings.IndexByte(indent, '\t'); tab >= 0 && len(faults) < maxFaults && strings.TrimSpace(text) != "" {
			faults = append(faults, Fault{File: file, Line: i + 1, Col: tab + 1, Message: "a tab; YAML is indented with spaces only"})
		}
	}
	if len(faults) > 0 {
		return faults
	}
	f := Fault{File: file, Message: "not YAML: " + strings.TrimPrefix(err.Error(), "yaml: "), Err: err}
	if m := yamlLine.FindStringSubmatch(f.Message); m != nil {
		f.Message = strings.Replace(f.Message, m[0], "", 1)
		f.Line, _ = strconv.Atoi(m[1])
	}
	f.Line = faultyLine(data, f.Line)
	f.Col = firstColumn(data, f.Line)
	for _, a := range yamlAdvice {
		if strings.Contains(err.Error(), a.says) {
			f.Message = "not YAML: " + a.means
			break
		}
	}
	return Faults{f}
}

// The bounds on the files whose faulty line is searched for: the search reads
// the file once for each line, and brackets nest.
const (
	maxSearchBytes    = 16 << 10
	maxSearchLines    = 500
	maxSearchBrackets = 300
)

// faultyLine returns the first line of the rest of the file that makes it no
// YAML: the one after the longest run of lines that is. The line that the
// reader reports may be where an enclosing value begins, or one too few; it is
// used where the file is too long to search.
func faultyLine(data []byte, reported int) int {
	lines := bytes.SplitAfter(data, []byte("\n"))
	brackets := bytes.Count(data, []byte("[")) + bytes.Count(data, []byte("{"))
	if len(data) > maxSearchBytes || len(lines) > maxSearchLines || brackets > maxSearchBrackets {
		return max(1, min(reported, len(lines)))
	}
	end := len(data)
	for n := len(lines); n > 0; n-- {
		end -= len(lines[n-1])
		var doc yaml.Node
		if err := yaml.Unmarshal(data[:end], &doc); err == nil {
			return n
		}
	}
	return 1
}

// firstColumn returns the column of a line's first character that is no space.
func firstColumn(data []byte, line int) int {
	lines := bytes.Split(data, []byte("\n"))
	if line < 1 || line > len(lines) {
		return 1
	}
	text := lines[line-1]
	return 1 + len(text) - len(bytes.TrimLeft(text, " "))
}

// describe names what a node is, for "not a list".
func describe(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case n.Kind == yaml.MappingNode:
		return "keys with values"
	case n.Tag == "!!null":
		return "nothing"
	}
	return "the single value " + quote(n.Value)
}

// quote quotes a value for a message, shortened where it is long.
func quote(text string) string {
	const most = 60
	if utf8.RuneCountInString(text) > most {
		text = string([]rune(text)[:most]) + "..."
	}
	return strconv.Quote(text)
}
