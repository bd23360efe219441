//go:build !race

package pipeline_test

// defaultScenarios is how many random scenarios a test runs when nobody says.
const defaultScenarios = 1000
