package kafka

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"
)

// What AWS's published test suite for Signature Version 4 expects of get-vanilla
// and post-x-www-form-urlencoded.
func TestSigV4Published(t *testing.T) {
	k := newKeys("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "")
	now := time.Date(2015, 8, 30, 12, 36, 0, 0, time.UTC)
	get := strings.Join([]string{"GET", "/", "", "host:example.amazonaws.com", "x-amz-date:20150830T123600Z", "", "host;x-amz-date", sigNoBody}, "\n")
	scope, signature := k.sign(get, "us-east-1", "service", now)
	if scope != "20150830/us-east-1/service/aws4_request" || signature != "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31" {
		t.Errorf("get-vanilla: %s, %s", scope, signature)
	}
	req, _ := http.NewRequest("POST", "https://example.amazonaws.com/", nil)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	k.signForm(req, "Param1=value1", "us-east-1", "service", now)
	if got, want := req.Header.Get("Authorization"), "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, "+
		"SignedHeaders=content-type;host;x-amz-date, Signature=ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a"; got != want {
		t.Errorf("post-x-www-form-urlencoded: %s, want %s", got, want)
	}
}

// What aws-sdk-go-v2's signer made of a request to take a role.
func TestSigV4Form(t *testing.T) {
	form := url.Values{"Action": {"AssumeRole"}, "RoleArn": {"arn:aws:iam::123456789012:role/reader"}, "RoleSessionName": {"elbo"}, "Version": {"2011-06-15"}}.Encode()
	for session, want := range map[string]string{
		"":                         "SignedHeaders=content-type;host;x-amz-date, Signature=3af1d7cbbcb15d09a3c8daeac5576c1d382e9c904115b5695addb06a56d8a10b",
		"FwoGZXIvYXdzEBYaD/+tok==": "SignedHeaders=content-type;host;x-amz-date;x-amz-security-token, Signature=455929d0390248b37911074d5e9c067f53786cb58fce9d1d99a38bea3865003d",
	} {
		req, _ := http.NewRequest("POST", "https://sts.eu-central-1.amazonaws.com/", nil)
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
		newKeys("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", session).signForm(req, form, "eu-central-1", "sts", time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC))
		if got := req.Header.Get("Authorization"); !strings.HasSuffix(got, want) {
			t.Errorf("Authorization = %s, want %s", got, want)
		}
	}
}

// recorded is a token of aws-msk-iam-sasl-signer-go v1.0.4, made under a fixed clock.
type recorded struct {
	Time, ID, Secret, Session, Region, Token string
}

func TestMSKToken(t *testing.T) {
	b, err := os.ReadFile("testdata/msk_tokens.json")
	if err != nil {
		t.Fatal(err)
	}
	var all []recorded
	if err := json.Unmarshal(b, &all); err != nil || len(all) < 3 {
		t.Fatalf("%d tokens, %v", len(all), err)
	}
	read := func(token string) (*url.URL, url.Values) {
		text, err := base64.RawURLEncoding.DecodeString(token)
		if err != nil {
			t.Fatal(err)
		}
		u, err := url.Parse(string(text))
		if err != nil {
			t.Fatal(err)
		}
		return u, u.Query()
	}
	for _, r := range all {
		t.Run(r.Region, func(t *testing.T) {
			now, err := time.Parse(time.RFC3339, r.Time)
			if err != nil {
				t.Fatal(err)
			}
			token := newKeys(r.ID, r.Secret, r.Session).mskToken(r.Region, now.In(time.FixedZone("east", 7200)))
			got, gotQuery := read(token)
			want, wantQuery := read(r.Token)
			gotQuery.Del("User-Agent") // not signed
			wantQuery.Del("User-Agent")
			if got.Scheme+got.Host+got.Path != want.Scheme+want.Host+want.Path || gotQuery.Encode() != wantQuery.Encode() {
				t.Errorf("token is\n%s\nwant\n%s", gotQuery.Encode(), wantQuery.Encode())
			}
			if !isToken(token) {
				t.Errorf("%q has characters that a bearer token has not", token)
			}
		})
	}
}

// world is a machine with these environment variables and nothing else.
func world(t *testing.T, aws AWS, env map[string]string) *awsWorld {
	all := map[string]string{"HOME": t.TempDir(), "AWS_EC2_METADATA_DISABLED": "true"}
	for k, v := range env {
		all[k] = v
	}
	return &awsWorld{aws: &aws, env: func(k string) string { return all[k] }, now: func() time.Time { return time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC) }}
}

// wantKeys fails unless keys are found, with this id and this life.
func wantKeys(t *testing.T, w *awsWorld, id, session string, life time.Duration) {
	t.Helper()
	k, got, err := w.keys(t.Context(), "eu-central-1")
	if err != nil || k.id != id || k.secret.Reveal() != "geheim" || k.session.Reveal() != session || got != life {
		t.Errorf("keys() = %q %q %q, %v, %v, want %q geheim %q, %v", k.id, k.secret.Reveal(), k.session.Reveal(), got, err, id, session, life)
	}
}

func TestAWSRegion(t *testing.T) {
	const broker = "b-1.demo.a1b2c3.c4.kafka.eu-west-3.amazonaws.com"
	for _, c := range []struct {
		set  string
		env  map[string]string
		host string
		want string
	}{
		{"us-west-2", map[string]string{"AWS_REGION": "x"}, broker, "us-west-2"},
		{"", map[string]string{"AWS_REGION": "r", "AWS_DEFAULT_REGION": "d"}, broker, "r"},
		{"", map[string]string{"AWS_DEFAULT_REGION": "d"}, broker, "d"},
		{"", nil, broker, "eu-west-3"},
		{"", nil, "boot-x.c1.kafka-serverless.us-east-1.amazonaws.com", "us-east-1"},
		{"", nil, "b-1.x.y.c4.kafka.cn-north-1.amazonaws.com.cn", "cn-north-1"},
	} {
		if got, err := world(t, AWS{Region: c.set}, c.env).region(c.host); got != c.want || err != nil {
			t.Errorf("region(%s) = %q, %v, want %q", c.host, got, err, c.want)
		}
	}
	_, err := world(t, AWS{}, nil).region("localhost")
	wantWords(t, err, "sasl.aws.region: must be set")
}

func TestAWSKeysOfEnvironmentAndFiles(t *testing.T) {
	dir := t.TempDir()
	credentials := putFile(t, dir, "credentials", []byte("# mine\n[default]\naws_access_key_id = D\naws_secret_access_key=geheim\n\n[ other ]\naws_access_key_id=O\nAWS_SECRET_ACCESS_KEY = geheim\naws_session_token = s=1\n; aws_session_token = x\n[half]\naws_access_key_id=H\n"))
	config := putFile(t, dir, "config", []byte("[default]\nregion = x\n[profile conf]\naws_access_key_id=C\naws_secret_access_key=geheim\n[profile role]\nrole_arn=arn:x\nsource_profile=default\n[profile sso]\nsso_session=x\n[profile run]\ncredential_process=/bin/x\n"))
	files := map[string]string{"AWS_SHARED_CREDENTIALS_FILE": credentials, "AWS_CONFIG_FILE": config}
	with := func(more ...string) map[string]string {
		m := map[string]string{}
		for k, v := range files {
			m[k] = v
		}
		for i := 0; i < len(more); i += 2 {
			m[more[i]] = more[i+1]
		}
		return m
	}
	wantKeys(t, world(t, AWS{}, with("AWS_ACCESS_KEY_ID", "E", "AWS_SECRET_ACCESS_KEY", "geheim", "AWS_SESSION_TOKEN", "t")), "E", "t", 0)
	wantKeys(t, world(t, AWS{}, with()), "D", "", 0)
	wantKeys(t, world(t, AWS{}, with("AWS_PROFILE", "other")), "O", "s=1", 0)
	wantKeys(t, world(t, AWS{Profile: "conf"}, with("AWS_ACCESS_KEY_ID", "E", "AWS_SECRET_ACCESS_KEY", "geheim")), "C", "", 0)
	w := world(t, AWS{}, nil)
	home := w.env("HOME")
	if err := os.Mkdir(home+"/.aws", 0o700); err != nil {
		t.Fatal(err)
	}
	putFile(t, home+"/.aws", "credentials", []byte("[default]\naws_access_key_id=HOME\naws_secret_access_key=geheim"))
	wantKeys(t, w, "HOME", "", 0)
	for _, c := range []struct {
		aws  AWS
		env  map[string]string
		want string
	}{
		{AWS{}, nil, "no AWS keys found in the environment (AWS_ACCESS_KEY_ID), a web identity (AWS_WEB_IDENTITY_TOKEN_FILE), the shared files, the container, the instance"},
		{AWS{}, map[string]string{"AWS_ACCESS_KEY_ID": "E"}, "set both AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"},
		{AWS{Profile: "none"}, with(), `sasl.aws.profile: no profile "none" in ` + credentials + " or " + config},
		{AWS{Profile: "half"}, with(), `sasl.aws.profile: no profile "half"`},
		{AWS{Profile: "role"}, with(), `profile "role" in ` + config + " uses role_arn, which is not read here"},
		{AWS{Profile: "sso"}, with(), "uses sso_session"},
		{AWS{Profile: "run"}, with(), "uses credential_process"},
		{AWS{}, with("AWS_SHARED_CREDENTIALS_FILE", dir), "AWS keys of the shared files: read " + dir},
	} {
		_, _, err := world(t, c.aws, c.env).keys(t.Context(), "x")
		wantWords(t, err, c.want)
	}
}

func TestAWSKeysOfContainer(t *testing.T) {
	status, body := 200, `{"AccessKeyId":"C","SecretAccessKey":"geheim","Token":"t","Expiration":"2026-01-01T01:00:00Z"}`
	var authorization string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		authorization = r.Header.Get("Authorization")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}))
	defer server.Close()
	token := putFile(t, t.TempDir(), "token", []byte("from file\n"))
	env := map[string]string{"AWS_CONTAINER_CREDENTIALS_FULL_URI": server.URL + "/x", "AWS_CONTAINER_AUTHORIZATION_TOKEN": "from env"}
	wantKeys(t, world(t, AWS{}, env), "C", "t", 55*time.Minute)
	if authorization != "from env" {
		t.Errorf("Authorization = %q, want that of the variable", authorization)
	}
	env["AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"] = token
	wantKeys(t, world(t, AWS{}, env), "C", "t", 55*time.Minute)
	if authorization != "from file" {
		t.Errorf("Authorization = %q, want that of the file", authorization)
	}
	for _, c := range []struct {
		status     int
		body, want string
	}{
		{404, "nobody", "AWS keys of the container: " + server.URL + "/x answered 404: nobody"},
		{200, "nobody", "the answer is not JSON"},
		{200, `{"Code":"Failed","Message":"role is gone"}`, "the answer has no keys: Failed role is gone"},
	} {
		status, body = c.status, c.body
		_, _, err := world(t, AWS{}, env).keys(t.Context(), "x")
		wantWords(t, err, c.want)
	}
	env["AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"] = "/nowhere/at all"
	_, _, err := world(t, AWS{}, env).keys(t.Context(), "x")
	wantWords(t, err, "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE: open")
	env["AWS_CONTAINER_CREDENTIALS_FULL_URI"] = "http://evil.test/"
	_, _, err = world(t, AWS{}, env).keys(t.Context(), "x")
	wantWords(t, err, "neither https nor the address of a container's host")
	for address, want := range map[string]bool{"https://a": true, "http://a": false, "http://127.0.0.7:1/x": true, "http://169.254.170.2/": true,
		"http://169.254.170.23/v1": true, "http://[fd00:ec2::23]/": true, "http://[::1]": true, "http://169.254.169.254/": false, "ftp://127.0.0.1": false, "http://localhost:1": true} {
		u, _ := url.Parse(address)
		if got := trustedContainer(u); got != want {
			t.Errorf("trustedContainer(%s) = %v, want %v", address, got, want)
		}
	}
}

func TestAWSKeysOfInstance(t *testing.T) {
	role := "reader"
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == "PUT" && r.URL.Path == "/latest/api/token" && r.Header.Get("X-aws-ec2-metadata-token-ttl-seconds") != "":
			fmt.Fprint(w, "v2-token")
		case r.Header.Get("X-aws-ec2-metadata-token") != "v2-token":
			w.WriteHeader(401)
		case r.URL.Path == "/latest/meta-data/iam/security-credentials/" && role != "":
			fmt.Fprint(w, role+"\n")
		case r.URL.Path == "/latest/meta-data/iam/security-credentials/reader":
			fmt.Fprint(w, `{"Code":"Success","AccessKeyId":"I","SecretAccessKey":"geheim","Token":"t","Expiration":"2026-01-01T06:00:00Z"}`)
		default:
			w.WriteHeader(404)
		}
	}))
	defer server.Close()
	env := map[string]string{"AWS_EC2_METADATA_DISABLED": "", "AWS_EC2_METADATA_SERVICE_ENDPOINT": server.URL + "/"}
	wantKeys(t, world(t, AWS{}, env), "I", "t", 6*time.Hour-5*time.Minute)
	role = ""
	_, _, err := world(t, AWS{}, env).keys(t.Context(), "x")
	wantWords(t, err, "AWS keys of the instance: is there a role attached?", "answered 404")
	server.Close()
	_, _, err = world(t, AWS{}, env).keys(t.Context(), "x")
	wantWords(t, err, "no AWS keys found in")
}

func TestAWSRoles(t *testing.T) {
	var form url.Values
	var authorization string
	status, body := 200, ""
	sts := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		form, authorization = r.PostForm, r.Header.Get("Authorization")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}))
	defer sts.Close()
	answer := func(kind string) string {
		return `<` + kind + `Response xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><` + kind + `Result><AssumedRoleUser><Arn>a</Arn></AssumedRoleUser><Credentials><AccessKeyId>R</AccessKeyId><SecretAccessKey>geheim</SecretAccessKey><SessionToken>t</SessionToken><Expiration>2026-01-01T01:00:00Z</Expiration></Credentials></` + kind + `Result></` + kind + `Response>`
	}
	const arn = "arn:aws:iam::123456789012:role/reader"
	env := map[string]string{"AWS_ENDPOINT_URL_STS": sts.URL, "AWS_ACCESS_KEY_ID": "E", "AWS_SECRET_ACCESS_KEY": "mine"}
	body = answer("AssumeRole")
	wantKeys(t, world(t, AWS{RoleARN: arn}, env), "R", "t", 55*time.Minute)
	if want := "Action=AssumeRole&RoleArn=" + url.QueryEscape(arn) + "&RoleSessionName=elbo&Version=2011-06-15"; form.Encode() != want || !strings.Contains(authorization, "Credential=E/20260101/eu-central-1/sts/") {
		t.Errorf("asked %s as %s, want %s", form.Encode(), authorization, want)
	}
	for _, c := range []struct {
		status     int
		body, want string
		final      bool
	}{
		{403, "<ErrorResponse><Error><Code>AccessDenied</Code><Message>not yours</Message></Error></ErrorResponse>", "answered 403: AccessDenied not yours", true},
		{500, "oops", "answered 500: oops", false},
		{200, "oops", "answered without keys", false},
	} {
		status, body = c.status, c.body
		_, _, err := world(t, AWS{RoleARN: arn}, env).keys(t.Context(), "x")
		wantWords(t, err, "take the role "+arn, c.want)
		var a *AuthError
		if errors.As(err, &a) != c.final {
			t.Errorf("error %v is an AuthError: %v, want %v", err, !c.final, c.final)
		}
	}
	token := putFile(t, t.TempDir(), "token", []byte("jwt\n"))
	status, body = 200, answer("AssumeRoleWithWebIdentity")
	web := map[string]string{"AWS_ENDPOINT_URL_STS": sts.URL, "AWS_WEB_IDENTITY_TOKEN_FILE": token, "AWS_ROLE_ARN": arn, "AWS_ROLE_SESSION_NAME": "me"}
	wantKeys(t, world(t, AWS{}, web), "R", "t", 55*time.Minute)
	if form.Get("WebIdentityToken") != "jwt" || form.Get("RoleSessionName") != "me" || authorization != "" {
		t.Errorf("asked %v, signed %q, want the token and no signature", form, authorization)
	}
	status, body = 400, "bad jwt"
	_, _, err := world(t, AWS{}, web).keys(t.Context(), "x")
	wantWords(t, err, "AWS keys of a web identity (AWS_WEB_IDENTITY_TOKEN_FILE): take the role", "answered 400: bad ***")
	web["AWS_WEB_IDENTITY_TOKEN_FILE"] = "/nowhere/at all"
	_, _, err = world(t, AWS{}, web).keys(t.Context(), "x")
	wantWords(t, err, "open /nowhere/at all")
}

// From the settings to the broker: MSK sees an OAUTHBEARER token, and its refusal is told.
func TestMSKLogin(t *testing.T) {
	for _, k := range []string{"AWS_SESSION_TOKEN", "AWS_DEFAULT_REGION", "AWS_PROFILE"} {
		t.Setenv(k, "")
	}
	t.Setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "geheim")
	t.Setenv("AWS_REGION", "eu-central-1")
	good := true
	addr, messages := bearer(t, func(string) bool { return good })
	s := &Security{Mechanism: MechanismAWS}
	if _, _, err := logIn(t, s, "localhost", addr); err != nil {
		t.Fatal(err)
	}
	_, token, _ := strings.Cut(messages()[0], "auth=Bearer ")
	text, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(token, "\x01"))
	if err != nil || !strings.HasPrefix(string(text), "https://kafka.eu-central-1.amazonaws.com/?Action=kafka-cluster%3AConnect&") {
		t.Errorf("token is %q, %v", text, err)
	}
	good = false
	_, _, err = logIn(t, s, "localhost", addr)
	wantAuth(t, err, ` as user "AKIDEXAMPLE" with AWS_MSK_IAM was refused: {"status":"invalid_token"}: check that the identity may do kafka-cluster:Connect`)
	t.Setenv("AWS_SECRET_ACCESS_KEY", "")
	_, _, err = logIn(t, s, "localhost", addr)
	wantWords(t, err, "authentication to localhost:", "with AWS_MSK_IAM: AWS keys of the environment (AWS_ACCESS_KEY_ID): set both")
	t.Setenv("AWS_REGION", "")
	_, _, err = logIn(t, s, "localhost", addr)
	wantWords(t, err, "sasl.aws.region: must be set")
}
