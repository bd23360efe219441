package config

import (
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"strings"
	"unicode/utf8"
)

// maxSecretBytes bounds a file named by ${file:path}.
const maxSecretBytes = 64 << 10

// variable is what a name in ${} may look like; read only.
var variable = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// secretive finds variables whose values are better not printed; read only.
var secretive = regexp.MustCompile(`(?i)(PASSW|SECRET|TOKEN|CREDENTIAL|PRIVATE|API_?KEY|ACCESS_?KEY)`)

// interpolate replaces ${VAR}, ${VAR:default} and ${file:path} in text, and $${
// by ${. What it puts in is not looked at again. Shown is the value for human
// eyes: what came from a file, or from a variable whose name tells of a secret,
// is *** there.
func (o Options) interpolate(text string) (value, shown string, err error) {
	var v, s strings.Builder
	for {
		i := strings.Index(text, "${")
		if i < 0 {
			v.WriteString(text)
			s.WriteString(text)
			return v.String(), s.String(), nil
		}
		if i > 0 && text[i-1] == '$' {
			v.WriteString(text[:i-1] + "${")
			s.WriteString(text[:i-1] + "${")
			text = text[i+2:]
			continue
		}
		end := strings.IndexByte(text[i:], '}')
		if end < 0 {
			return "", "", errors.New("${ without its }; write $${ for the two characters themselves")
		}
		got, secret, err := o.lookUp(text[i+2 : i+end])
		if err != nil {
			return "", "", err
		}
		v.WriteString(text[:i] + got)
		s.WriteString(text[:i])
		if secret {
			got = mask
		}
		s.WriteString(got)
		text = text[i+end+1:]
	}
}

// lookUp returns what stands for the inside of one ${}.
func (o Options) lookUp(inside string) (value string, secret bool, err error) {
	name, rest, hasRest := strings.Cut(inside, ":")
	if name == "file" && hasRest {
		value, err := o.readSecret(rest)
		return value, true, err
	}
	if !variable.MatchString(name) {
		return "", false, fmt.Errorf("%s is no variable; write ${NAME}, ${NAME:default} or ${file:path}, and $${ for the two characters themselves", quote("${"+inside+"}"))
	}
	if value, ok := o.LookupEnv(name); ok {
		if !utf8.ValidString(value) {
			return "", false, fmt.Errorf("the environment variable %s is not UTF-8", name)
		}
		return value, secretive.MatchString(name), nil
	}
	if hasRest {
		return rest, false, nil
	}
	return "", false, fmt.Errorf("the environment variable %s is not set; set it, or write ${%s:default}", name, name)
}

// readSecret reads a file and drops one line end after its text.
func (o Options) readSecret(path string) (string, error) {
	if path == "" {
		return "", errors.New("${file:} names no file")
	}
	data, err := o.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("file %s does not exist; relative paths start at the working directory", path)
	case errors.Is(err, fs.ErrPermission):
		return "", fmt.Errorf("file %s may not be read by this user", path)
	case err != nil:
		return "", fmt.Errorf("file %s: %w", path, err)
	case len(data) > maxSecretBytes:
		return "", fmt.Errorf("file %s is larger than %s", path, ByteSize(maxSecretBytes))
	case !utf8.Valid(data):
		return "", fmt.Errorf("file %s is not UTF-8 text", path)
	}
	return strings.TrimSuffix(strings.TrimSuffix(string(data), "\n"), "\r"), nil
}
