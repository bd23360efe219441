//go:build !race

package kafka_test

// raceDetector says that the race detector is on.
const raceDetector = false
