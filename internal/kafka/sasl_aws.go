package kafka

import (
	"cmp"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// byAWS signs a token for MSK and presents it as OAUTHBEARER does.
func (d *dialogue) byAWS(ctx context.Context) error {
	w := &awsWorld{aws: &d.security.AWS, env: os.Getenv, now: time.Now}
	host, _, _ := net.SplitHostPort(d.addr)
	region, err := w.region(host)
	if err != nil {
		return fmt.Errorf("authentication to %s with %s: %w", d.addr, d.security.Mechanism, err)
	}
	d.hint = "check that the identity may do kafka-cluster:Connect on this cluster, and this machine's clock"
	shared := d.security.sharedState()
	return d.byToken(ctx, func(ctx context.Context) (string, bool, error) {
		keys, old, err := shared.keys.get(ctx, func(ctx context.Context) (awsKeys, time.Duration, error) { return w.keys(ctx, region) })
		if err != nil {
			return "", false, err
		}
		d.user = keys.id
		return keys.mskToken(region, w.now()), old, nil
	}, shared.keys.forget)
}

// awsWorld finds keys where Amazon's tools look for them.
type awsWorld struct {
	aws *AWS
	env func(name string) string
	now func() time.Time
}

var errNoKeys = errors.New("none here")

// region is the one that the settings, the environment or the broker's name tell.
func (w *awsWorld) region(host string) (string, error) {
	if r := cmp.Or(w.aws.Region, w.env("AWS_REGION"), w.env("AWS_DEFAULT_REGION")); r != "" {
		return r, nil
	}
	if m := regexp.MustCompile(`\.([a-z0-9-]+)\.amazonaws\.com(\.cn)?\.?$`).FindStringSubmatch(host); m != nil {
		return m[1], nil
	}
	return "", errors.New("sasl.aws.region: must be set: neither AWS_REGION nor the broker's name tells it")
}

// keys returns keys and for how long they are worth keeping; 0 for those that are
// cheap to look up again.
func (w *awsWorld) keys(ctx context.Context, region string) (awsKeys, time.Duration, error) {
	keys, life, err := w.search(ctx, region)
	if err != nil || w.aws.RoleARN == "" {
		return keys, life, err
	}
	form := url.Values{"Action": {"AssumeRole"}, "RoleArn": {w.aws.RoleARN}, "RoleSessionName": {cmp.Or(w.aws.SessionName, "elbo")}}
	return w.takeRole(ctx, region, form, &keys)
}

// search goes through the places in Amazon's order. A place that has something
// which is of no use ends the search.
func (w *awsWorld) search(ctx context.Context, region string) (awsKeys, time.Duration, error) {
	if w.aws.Profile != "" {
		keys, err := w.fromFiles(w.aws.Profile)
		if errors.Is(err, errNoKeys) {
			err = fmt.Errorf("sasl.aws.profile: no profile %q in %s", w.aws.Profile, strings.Join(w.files(), " or "))
		}
		return keys, 0, err
	}
	var tried []string
	for _, place := range []struct {
		name string
		keys func() (awsKeys, time.Duration, error)
	}{
		{"the environment (AWS_ACCESS_KEY_ID)", w.fromEnv},
		{"a web identity (AWS_WEB_IDENTITY_TOKEN_FILE)", func() (awsKeys, time.Duration, error) { return w.fromWebIdentity(ctx, region) }},
		{"the shared files", func() (awsKeys, time.Duration, error) {
			keys, err := w.fromFiles(cmp.Or(w.env("AWS_PROFILE"), "default"))
			return keys, 0, err
		}},
		{"the container", func() (awsKeys, time.Duration, error) { return w.fromContainer(ctx) }},
		{"the instance", func() (awsKeys, time.Duration, error) { return w.fromInstance(ctx) }},
	} {
		keys, life, err := place.keys()
		if err == nil {
			return keys, life, nil
		}
		if !errors.Is(err, errNoKeys) {
			return keys, 0, fmt.Errorf("AWS keys of %s: %w", place.name, err)
		}
		tried = append(tried, place.name)
	}
	return awsKeys{}, 0, fmt.Errorf("no AWS keys found in %s", strings.Join(tried, ", "))
}

func (w *awsWorld) fromEnv() (awsKeys, time.Duration, error) {
	id, secret := w.env("AWS_ACCESS_KEY_ID"), w.env("AWS_SECRET_ACCESS_KEY")
	if id == "" && secret == "" {
		return awsKeys{}, 0, errNoKeys
	}
	if id == "" || secret == "" {
		return awsKeys{}, 0, errors.New("set both AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
	}
	return newKeys(id, secret, w.env("AWS_SESSION_TOKEN")), 0, nil
}

func newKeys(id, secret, session string) awsKeys {
	k := awsKeys{id: id, secret: NewCredential(secret)}
	if session != "" {
		k.session = NewCredential(session)
	}
	return k
}

// files are the shared credentials file and the config file.
func (w *awsWorld) files() []string {
	home := w.env("HOME")
	return []string{
		cmp.Or(w.env("AWS_SHARED_CREDENTIALS_FILE"), filepath.Join(home, ".aws", "credentials")),
		cmp.Or(w.env("AWS_CONFIG_FILE"), filepath.Join(home, ".aws", "config")),
	}
}

func (w *awsWorld) fromFiles(profile string) (awsKeys, error) {
	for _, file := range w.files() {
		b, err := os.ReadFile(file)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return awsKeys{}, err
		}
		section := readProfile(string(b), profile)
		if id, secret := section["aws_access_key_id"], section["aws_secret_access_key"]; id != "" && secret != "" {
			return newKeys(id, secret, section["aws_session_token"]), nil
		}
		for _, key := range []string{"role_arn", "credential_process", "sso_session", "sso_start_url"} {
			if section[key] != "" {
				return awsKeys{}, fmt.Errorf("profile %q in %s uses %s, which is not read here: give keys, or set sasl.aws.role_arn and the profile that may take the role", profile, file, key)
			}
		}
	}
	return awsKeys{}, errNoKeys
}

// readProfile returns one section of an AWS file, [name] or [profile name].
func readProfile(text, profile string) map[string]string {
	section, in := map[string]string{}, false
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if name, ok := strings.CutPrefix(line, "["); ok {
			name, _, _ = strings.Cut(name, "]")
			name = strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(name), "profile "))
			in = name == profile
			continue
		}
		if k, v, ok := strings.Cut(line, "="); ok && in && !strings.HasPrefix(line, "#") && !strings.HasPrefix(line, ";") {
			section[strings.ToLower(strings.TrimSpace(k))] = strings.TrimSpace(v)
		}
	}
	return section
}

// awsIssued is how containers and instances hand out keys.
type awsIssued struct {
	Code            string
	Message         string
	AccessKeyID     string `json:"AccessKeyId"`
	SecretAccessKey string
	Token           string
	Expiration      time.Time
}

// fromContainer asks the endpoint that ECS and EKS announce in the environment.
func (w *awsWorld) fromContainer(ctx context.Context) (awsKeys, time.Duration, error) {
	address := w.env("AWS_CONTAINER_CREDENTIALS_FULL_URI")
	if relative := w.env("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"); relative != "" {
		address = "http://169.254.170.2" + relative
	}
	if address == "" {
		return awsKeys{}, 0, errNoKeys
	}
	u, err := url.Parse(address)
	if err != nil || !trustedContainer(u) {
		return awsKeys{}, 0, errors.New("AWS_CONTAINER_CREDENTIALS_FULL_URI is neither https nor the address of a container's host")
	}
	token := w.env("AWS_CONTAINER_AUTHORIZATION_TOKEN")
	if file := w.env("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"); file != "" {
		b, err := os.ReadFile(file)
		if err != nil {
			return awsKeys{}, 0, fmt.Errorf("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE: %w", err)
		}
		token = strings.TrimSpace(string(b))
	}
	var header http.Header
	if token != "" {
		header = http.Header{"Authorization": {token}}
	}
	body, err := w.get(ctx, http.MethodGet, address, header)
	if err != nil {
		return awsKeys{}, 0, err
	}
	return w.readIssued(body)
}

// trustedContainer tells whether a token may be sent there: over TLS, or to the
// addresses that only this machine has.
func trustedContainer(u *url.URL) bool {
	if u.Scheme == "https" {
		return true
	}
	ip := net.ParseIP(u.Hostname())
	return u.Scheme == "http" && (u.Hostname() == "localhost" || ip.IsLoopback() ||
		ip.Equal(net.IPv4(169, 254, 170, 2)) || ip.Equal(net.IPv4(169, 254, 170, 23)) || ip.Equal(net.ParseIP("fd00:ec2::23")))
}

// fromInstance asks the metadata service of EC2, version 2, which needs a token of its own.
func (w *awsWorld) fromInstance(ctx context.Context) (awsKeys, time.Duration, error) {
	if strings.EqualFold(w.env("AWS_EC2_METADATA_DISABLED"), "true") {
		return awsKeys{}, 0, errNoKeys
	}
	base := cmp.Or(w.env("AWS_EC2_METADATA_SERVICE_ENDPOINT"), "http://169.254.169.254")
	base = strings.TrimSuffix(base, "/") + "/latest/"
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second) // elsewhere than on EC2 nobody answers
	defer cancel()
	token, err := w.get(ctx, http.MethodPut, base+"api/token", http.Header{"X-Aws-Ec2-Metadata-Token-Ttl-Seconds": {"60"}})
	if err != nil {
		return awsKeys{}, 0, errNoKeys
	}
	header := http.Header{"X-Aws-Ec2-Metadata-Token": {string(token)}}
	roles := base + "meta-data/iam/security-credentials/"
	role, err := w.get(ctx, http.MethodGet, roles, header)
	if err != nil {
		return awsKeys{}, 0, fmt.Errorf("is there a role attached? %w", err)
	}
	name, _, _ := strings.Cut(strings.TrimSpace(string(role)), "\n")
	body, err := w.get(ctx, http.MethodGet, roles+url.PathEscape(name), header)
	if err != nil {
		return awsKeys{}, 0, err
	}
	return w.readIssued(body)
}

// readIssued reads keys; they are worth keeping until five minutes before their end.
func (w *awsWorld) readIssued(body []byte) (awsKeys, time.Duration, error) {
	var i awsIssued
	if err := json.Unmarshal(body, &i); err != nil {
		return awsKeys{}, 0, errors.New("the answer is not JSON")
	}
	if i.AccessKeyID == "" || i.SecretAccessKey == "" {
		return awsKeys{}, 0, fmt.Errorf("the answer has no keys: %s", excerpt(i.Code+" "+i.Message))
	}
	return newKeys(i.AccessKeyID, i.SecretAccessKey, i.Token), w.worth(i.Expiration), nil
}

func (w *awsWorld) worth(end time.Time) time.Duration {
	if end.IsZero() {
		return 0
	}
	return max(0, end.Sub(w.now())-5*time.Minute)
}

// get asks without a proxy: metadata is never behind one.
func (w *awsWorld) get(ctx context.Context, method, address string, header http.Header) ([]byte, error) {
	client, err := webClient("", "")
	if err != nil {
		return nil, err
	}
	client.Transport.(*http.Transport).Proxy = nil
	req, err := http.NewRequestWithContext(ctx, method, address, nil)
	if err != nil {
		return nil, err
	}
	for k, v := range header {
		req.Header[k] = v
	}
	status, body, err := askWeb(client, req)
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("%s answered %d: %s", address, status, excerpt(string(body)))
	}
	return body, err
}

// fromWebIdentity takes the role that a Kubernetes service account stands for.
func (w *awsWorld) fromWebIdentity(ctx context.Context, region string) (awsKeys, time.Duration, error) {
	file, role := w.env("AWS_WEB_IDENTITY_TOKEN_FILE"), w.env("AWS_ROLE_ARN")
	if file == "" || role == "" {
		return awsKeys{}, 0, errNoKeys
	}
	token, err := os.ReadFile(file)
	if err != nil {
		return awsKeys{}, 0, err
	}
	return w.takeRole(ctx, region, url.Values{
		"Action": {"AssumeRoleWithWebIdentity"}, "RoleArn": {role}, "RoleSessionName": {cmp.Or(w.env("AWS_ROLE_SESSION_NAME"), "elbo")},
		"WebIdentityToken": {strings.TrimSpace(string(token))},
	}, nil)
}

// takeRole asks the security token service for a role's keys, signed with keys if
// there are any.
func (w *awsWorld) takeRole(ctx context.Context, region string, form url.Values, keys *awsKeys) (awsKeys, time.Duration, error) {
	domain := ".amazonaws.com/"
	if strings.HasPrefix(region, "cn-") {
		domain = ".amazonaws.com.cn/"
	}
	form.Set("Version", "2011-06-15")
	body := form.Encode()
	address := cmp.Or(w.env("AWS_ENDPOINT_URL_STS"), "https://sts."+region+domain)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, strings.NewReader(body))
	if err != nil {
		return awsKeys{}, 0, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
	if keys != nil {
		keys.signForm(req, body, region, "sts", w.now())
	}
	client, err := webClient("", "")
	if err != nil {
		return awsKeys{}, 0, err
	}
	status, answer, err := askWeb(client, req)
	if err != nil {
		return awsKeys{}, 0, fmt.Errorf("take the role %s: %w", form.Get("RoleArn"), err)
	}
	return w.readRole(form, status, answer)
}

// readRole reads what the security token service answers, to both kinds of question.
func (w *awsWorld) readRole(form url.Values, status int, answer []byte) (awsKeys, time.Duration, error) {
	type result struct {
		ID         string    `xml:"Credentials>AccessKeyId"`
		Secret     string    `xml:"Credentials>SecretAccessKey"`
		Session    string    `xml:"Credentials>SessionToken"`
		Expiration time.Time `xml:"Credentials>Expiration"`
	}
	var a struct {
		Role    result `xml:"AssumeRoleResult"`
		Web     result `xml:"AssumeRoleWithWebIdentityResult"`
		Code    string `xml:"Error>Code"`
		Message string `xml:"Error>Message"`
	}
	bad := xml.Unmarshal(answer, &a)
	if status != http.StatusOK {
		text := cmp.Or(strings.TrimSpace(a.Code+" "+a.Message), string(answer))
		reason := fmt.Sprintf("take the role %s: the security token service answered %d: %s",
			form.Get("RoleArn"), status, excerpt(text, form.Get("WebIdentityToken")))
		if status == http.StatusForbidden {
			return awsKeys{}, 0, &AuthError{Reason: reason, Hint: "check the role's trust policy and sasl.aws.role_arn"}
		}
		return awsKeys{}, 0, errors.New(reason)
	}
	r := a.Role
	if r.ID == "" {
		r = a.Web
	}
	if bad != nil || r.ID == "" || r.Secret == "" {
		return awsKeys{}, 0, fmt.Errorf("take the role %s: the security token service answered without keys", form.Get("RoleArn"))
	}
	return newKeys(r.ID, r.Secret, r.Session), w.worth(r.Expiration), nil
}
