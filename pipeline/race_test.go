//go:build race

package pipeline_test

// defaultScenarios is smaller with the race detector, under which each takes five times as long.
const defaultScenarios = 250
