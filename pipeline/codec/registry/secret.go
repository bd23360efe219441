package registry

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
)

// A Secret is a text that is never shown: formatting, logging and marshalling give
// ***. The zero value is not set.
type Secret struct {
	value *string // fmt prints an unexported pointer as an address, never the text
}

const mask = "***"

// NewSecret returns a secret that holds value.
func NewSecret(value string) Secret { return Secret{&value} }

// IsSet tells whether the secret holds a text, even an empty one.
func (s Secret) IsSet() bool { return s.value != nil }

// String returns ***.
func (s Secret) String() string { return mask }

// Format writes *** for every verb.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, mask) }

// LogValue returns ***.
func (s Secret) LogValue() slog.Value { return slog.StringValue(mask) }

// MarshalText returns ***.
func (s Secret) MarshalText() ([]byte, error) { return []byte(mask), nil }

// secretFrom returns the text of the one place that is set, "" when none is. A
// line end behind it is dropped.
func secretFrom(name string, s Secret, file, env string) (string, error) {
	switch {
	case s.value != nil:
		return *s.value, nil
	case file != "":
		b, err := os.ReadFile(file)
		if err != nil {
			return "", fmt.Errorf("%s_file: %w", name, err)
		}
		if text := strings.TrimSpace(string(b)); text != "" {
			return text, nil
		}
		return "", fmt.Errorf("%s_file: %s is empty", name, file)
	case env != "":
		if text := strings.TrimSpace(os.Getenv(env)); text != "" {
			return text, nil
		}
		return "", fmt.Errorf("%s_env: the variable %s is not set", name, env)
	}
	return "", nil
}
