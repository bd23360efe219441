//go:build race

package kafka_test

// raceDetector says that the race detector is on: sync.Pool then forgets at random,
// so libraries allocate.
const raceDetector = true
