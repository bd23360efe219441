package kafka

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"slices"
	"strings"
)

// The mechanisms of Security.
const (
	MechanismPlain       = "PLAIN"
	MechanismSCRAM256    = "SCRAM-SHA-256"
	MechanismSCRAM512    = "SCRAM-SHA-512"
	MechanismOAuthBearer = "OAUTHBEARER"
	MechanismAWS         = "AWS_MSK_IAM"
)

// Mechanisms returns every mechanism that Security knows.
func Mechanisms() []string {
	return []string{MechanismPlain, MechanismSCRAM256, MechanismSCRAM512, MechanismOAuthBearer, MechanismAWS}
}

// Security says how to reach a broker safely and who we are. The zero value is
// plaintext without authentication. Every file is read again at each new
// connection, so that a renewed certificate, password or token needs no restart.
// It is safe for concurrent use once it is no longer written to.
type Security struct {
	TLS TLS

	// Mechanism is one of Mechanisms, or "" for no authentication.
	Mechanism string

	// User is who logs in with PLAIN and SCRAM: the name, a file that holds it, or
	// the environment variable that does. Exactly one is set.
	User, UserFile, UserEnv string

	// Password goes with the user, from the same three kinds of places.
	Password                  Credential
	PasswordFile, PasswordEnv string

	OAuth OAuth
	AWS   AWS

	shared *sharedState // shared by all connections; nil: nothing is kept
}

// TLS says how the connection is encrypted and how each end is known.
type TLS struct {
	Enabled bool
	// CAFile holds the PEM certificates of who may sign a broker's; "" means those of the system.
	CAFile string
	// CertFile and KeyFile are our own certificate and its key in PEM, for brokers
	// that ask for one. Both are set or neither.
	CertFile, KeyFile string
	// ServerName is what the broker's certificate must be for; "" means the name that is dialled.
	ServerName string
	// Insecure skips the check of the broker's certificate. It is for tests.
	Insecure bool
}

// OAuth says where OAUTHBEARER gets its token: from a file that somebody renews, or
// from a token endpoint by the client credentials grant.
type OAuth struct {
	// TokenFile holds a token, which is read for each connection.
	TokenFile string

	// TokenURL is asked for a token, which is kept until shortly before it expires.
	TokenURL                          string
	ClientID                          string
	ClientSecret                      Credential
	ClientSecretFile, ClientSecretEnv string
	Scope                             string // with TokenURL, parted by spaces; may be empty
	// SecretInBody sends the client's id and secret as form fields, for endpoints
	// that do not take them as HTTP basic authentication.
	SecretInBody bool
	// CAFile is for the token endpoint what TLS.CAFile is for brokers.
	CAFile string

	// Extensions are the SASL extensions sent beside the token, such as logicalCluster.
	Extensions map[string]string
}

// AWS says who logs in with AWS_MSK_IAM. What is empty is found as Amazon's tools
// do: environment, shared files, container, instance.
type AWS struct {
	Region  string // "" means AWS_REGION, AWS_DEFAULT_REGION, or what the broker's name says
	Profile string // of the shared credentials file; "" means the usual order of places
	RoleARN string // a role to take before connecting; "" means none
	// SessionName names that role's session; "" means elbo.
	SessionName string
}

// A Credential is a text that is never shown: formatting, logging and marshalling
// give ***. The zero value is not set.
type Credential struct {
	value *string // fmt prints an unexported pointer as an address, never the text
}

// credentialMask stands for a credential.
const credentialMask = "***"

// NewCredential returns a credential that holds value.
func NewCredential(value string) Credential { return Credential{&value} }

// Reveal returns the text, "" when it is not set. What it returns must not reach a
// log or an error.
func (c Credential) Reveal() string {
	if c.value == nil {
		return ""
	}
	return *c.value
}

// IsSet tells whether the credential holds a text, even an empty one.
func (c Credential) IsSet() bool { return c.value != nil }

// String returns ***.
func (c Credential) String() string { return credentialMask }

// Format writes *** for every verb.
func (c Credential) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, credentialMask) }

// LogValue returns ***.
func (c Credential) LogValue() slog.Value { return slog.StringValue(credentialMask) }

// MarshalText returns ***.
func (c Credential) MarshalText() ([]byte, error) { return []byte(credentialMask), nil }

// Check reports everything that is wrong with the settings, each fault by the name
// of its key, such as sasl.password_file. It opens no file and asks nobody.
func (s *Security) Check() error {
	errs := s.TLS.check()
	switch s.Mechanism {
	case "":
		errs = append(errs, s.unused("sasl.mechanism is not set")...)
	case MechanismPlain, MechanismSCRAM256, MechanismSCRAM512:
		errs = append(errs, s.user().check(true)...)
		errs = append(errs, s.password().check(true)...)
	case MechanismOAuthBearer:
		errs = append(errs, s.OAuth.check()...)
	case MechanismAWS:
		if !s.TLS.Enabled {
			errs = append(errs, errors.New("tls.enabled: AWS_MSK_IAM is spoken over TLS only"))
		}
		if s.AWS.RoleARN != "" && !strings.HasPrefix(s.AWS.RoleARN, "arn:") {
			errs = append(errs, fmt.Errorf("sasl.aws.role_arn: %q is no ARN", s.AWS.RoleARN))
		}
	default:
		errs = append(errs, fmt.Errorf("sasl.mechanism: %q is unknown: use one of %s", s.Mechanism, strings.Join(Mechanisms(), ", ")))
	}
	return errors.Join(errs...)
}

// Warnings returns what is allowed and yet unwise, one sentence each.
func (s *Security) Warnings() []string {
	var w []string
	if s.TLS.Enabled && s.TLS.Insecure {
		w = append(w, "tls.insecure: nobody checks who the broker is")
	}
	if !s.TLS.Enabled && (s.Mechanism == MechanismPlain || s.Mechanism == MechanismOAuthBearer) {
		w = append(w, "sasl.mechanism: "+s.Mechanism+" without tls.enabled sends the credentials in the clear")
	}
	if u, err := url.Parse(s.OAuth.TokenURL); err == nil && u.Scheme == "http" {
		w = append(w, "sasl.oauth.token_url: http sends the client's secret in the clear")
	}
	return w
}

// validate is Check, and then reads every file and variable that a connection will
// need. It readies s to keep tokens from one connection to the next.
func (s *Security) validate() error {
	if err := s.Check(); err != nil {
		return err
	}
	var errs []error
	note := func(err error) {
		if err != nil {
			errs = append(errs, err)
		}
	}
	if s.TLS.Enabled {
		_, err := s.TLS.config("")
		note(err)
	}
	switch s.Mechanism {
	case MechanismPlain, MechanismSCRAM256, MechanismSCRAM512:
		_, err := s.user().read()
		note(err)
		_, err = s.password().read()
		note(err)
	case MechanismOAuthBearer:
		if s.OAuth.TokenURL != "" {
			_, err := s.OAuth.secret().read()
			note(err)
		}
	}
	if s.shared == nil {
		s.shared = newSharedState()
	}
	return errors.Join(errs...)
}

// unused reports login settings that nothing will read.
func (s *Security) unused(why string) []error {
	var errs []error
	for _, f := range []struct {
		key string
		set bool
	}{
		{"sasl.user", s.user().set()},
		{"sasl.password", s.password().set()},
		{"sasl.oauth.token_file", s.OAuth.TokenFile != ""},
		{"sasl.oauth.token_url", s.OAuth.TokenURL != ""},
	} {
		if f.set {
			errs = append(errs, fmt.Errorf("%s: is set, but %s", f.key, why))
		}
	}
	return errs
}

func (t *TLS) check() []error {
	if !t.Enabled {
		var errs []error
		for key, v := range map[string]string{"ca_file": t.CAFile, "cert_file": t.CertFile, "key_file": t.KeyFile, "server_name": t.ServerName} {
			if v != "" {
				errs = append(errs, fmt.Errorf("tls.%s: is set, but tls.enabled is false", key))
			}
		}
		slices.SortFunc(errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
		return errs
	}
	switch {
	case t.CertFile != "" && t.KeyFile == "":
		return []error{errors.New("tls.key_file: must be set, because tls.cert_file is")}
	case t.CertFile == "" && t.KeyFile != "":
		return []error{errors.New("tls.cert_file: must be set, because tls.key_file is")}
	}
	return nil
}

func (s *Security) user() textSource {
	return textSource{"sasl.user", s.User, s.User != "", s.UserFile, s.UserEnv}
}

func (s *Security) password() textSource {
	return textSource{"sasl.password", s.Password.Reveal(), s.Password.IsSet(), s.PasswordFile, s.PasswordEnv}
}

// textSource is where one text comes from. The text may be secret: it is in no error.
type textSource struct {
	key       string // of the literal; the others add _file and _env
	literal   string
	isLiteral bool
	file, env string
}

func (s textSource) set() bool { return s.isLiteral || s.file != "" || s.env != "" }

// name is the key that is in use.
func (s textSource) name() string {
	switch {
	case s.isLiteral:
		return s.key
	case s.env != "":
		return s.key + "_env"
	default:
		return s.key + "_file"
	}
}

func (s textSource) check(required bool) []error {
	n := 0
	for _, set := range []bool{s.isLiteral, s.file != "", s.env != ""} {
		if set {
			n++
		}
	}
	switch {
	case n > 1:
		return []error{fmt.Errorf("%s: set one of %[1]s, %[1]s_file and %[1]s_env, not %d", s.key, n)}
	case n == 0 && required:
		return []error{fmt.Errorf("%s_file: must be set (or %[1]s, or %[1]s_env)", s.key)}
	}
	return nil
}

// read returns the text as it is now. A file's last line break is no part of it.
func (s textSource) read() (string, error) {
	switch {
	case s.isLiteral:
		return s.literal, nil
	case s.file != "":
		b, err := os.ReadFile(s.file)
		if err != nil {
			return "", fmt.Errorf("%s: %w", s.name(), err)
		}
		text := strings.TrimRight(string(b), "\r\n")
		if text == "" {
			return "", fmt.Errorf("%s: %s is empty", s.name(), s.file)
		}
		return text, nil
	default:
		text := os.Getenv(s.env)
		if text == "" {
			return "", fmt.Errorf("%s: the environment variable %s is not set", s.name(), s.env)
		}
		return text, nil
	}
}
