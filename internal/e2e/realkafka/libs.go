package realkafka

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Verified are the versions that the tests run on when nobody says otherwise: the
// last line that still knew ZooKeeper and old requests, and one that dropped both.
func Verified() []string { return []string{"3.9.1", "4.1.1"} }

// ErrMissing is why real Kafka cannot be had: no java, no mvn, or no jars.
var ErrMissing = errors.New("real Kafka is not to be had")

// Versions returns the versions to test on, and skips the test unless
// ELBO_TEST_REAL_KAFKA=1. ELBO_TEST_KAFKA_VERSIONS="3.9.1,4.1.1" picks others
// than Verified.
func Versions(t testing.TB) []string {
	t.Helper()
	if os.Getenv("ELBO_TEST_REAL_KAFKA") != "1" {
		t.Skip("SKIPPED: real Kafka: ELBO_TEST_REAL_KAFKA=1 is not set")
	}
	list := strings.FieldsFunc(os.Getenv("ELBO_TEST_KAFKA_VERSIONS"), func(r rune) bool { return r == ',' || r == ' ' })
	if len(list) == 0 {
		return Verified()
	}
	return list
}

// binding is what a version needs beside Kafka's own jars: a backend for slf4j,
// without which 3.x does not start and 4.x is mute.
func binding(version string) (group, artifact, binding string) {
	if strings.HasPrefix(version, "3.") {
		return "org.slf4j", "slf4j-reload4j", "1.7.36"
	}
	return "org.apache.logging.log4j", "log4j-slf4j-impl", "2.24.3"
}

// pom is a project that only lists jars. The console tools live in kafka-tools;
// Kafka Connect, which they drag in, is left out.
func pom(version string) string {
	group, artifact, v := binding(version)
	return fmt.Sprintf(`<?xml version="1.0" encoding="UTF-8"?>
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>elbo</groupId><artifactId>realkafka</artifactId><version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>%[1]s</version></dependency>
    <dependency>
      <groupId>org.apache.kafka</groupId><artifactId>kafka-tools</artifactId><version>%[1]s</version>
      <exclusions><exclusion><groupId>org.apache.kafka</groupId><artifactId>connect-runtime</artifactId></exclusion></exclusions>
    </dependency>
    <dependency><groupId>%[2]s</groupId><artifactId>%[3]s</artifactId><version>%[4]s</version></dependency>
  </dependencies>
</project>
`, version, group, artifact, v)
}

// Libs returns the folder with the jars of a version. They are taken from
// ELBO_KAFKA_LIBS_<version> if that is set, else from the user's cache, into which
// the first call copies them by mvn (50 MB, a minute at most on a good line). An
// error is an ErrMissing.
func Libs(ctx context.Context, version string) (string, error) {
	if dir := os.Getenv("ELBO_KAFKA_LIBS_" + version); dir != "" {
		return dir, nil
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("%w: no cache folder: %w", ErrMissing, err)
	}
	dir := filepath.Join(cache, "elbo-kafka", version)
	if complete(dir) {
		return dir, nil
	}
	for _, tool := range []string{"java", "mvn"} {
		if _, err := exec.LookPath(tool); err != nil {
			return "", fmt.Errorf("%w: %w", ErrMissing, err)
		}
	}
	if err := copyJars(ctx, version, dir); err != nil {
		return "", fmt.Errorf("%w: jars of %s: %w", ErrMissing, version, err)
	}
	return dir, nil
}

// complete says whether a folder was filled to the end.
func complete(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "complete"))
	return err == nil
}

// copyJars has mvn copy the jars beside dir, and moves them there at the end: two
// processes that do so at once do not see each other's half.
func copyJars(ctx context.Context, version, dir string) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(filepath.Dir(dir), "."+version+"-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	file := filepath.Join(tmp, "pom.xml")
	if err := os.WriteFile(file, []byte(pom(version)), 0o644); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "mvn", "-q", "-B", "-f", file, "dependency:copy-dependencies",
		"-DincludeScope=runtime", "-DoutputDirectory="+filepath.Join(tmp, "libs"))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("mvn: %w: %s", err, bytes.TrimSpace(out))
	}
	if err := os.WriteFile(filepath.Join(tmp, "libs", "complete"), nil, 0o644); err != nil {
		return err
	}
	if complete(dir) {
		return nil
	}
	if err := os.RemoveAll(dir); err != nil { // an older, unfinished one
		return err
	}
	if err := os.Rename(filepath.Join(tmp, "libs"), dir); err != nil && !complete(dir) {
		return err
	}
	return nil
}
