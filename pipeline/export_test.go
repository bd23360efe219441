package pipeline

// Plant returns c with a defect in the engine, by which tests prove that their
// checker finds it. An empty name plants none.
func (c Config) Plant(name string) Config {
	switch name {
	case "":
	case "commit the largest":
		c.faults.commitLargest = true
	case "drop on drain":
		c.faults.dropOnDrain = true
	case "skip one too many":
		c.faults.skipWrong = true
	case "commit before dead letters":
		c.faults.commitEarly = true
	case "keep old positions":
		c.faults.oldPositions = true
	case "ignore seals":
		c.faults.ignoreSeals = true
	case "overlook dead letters":
		c.faults.deadUnasked = true
	default:
		panic("pipeline: no fault " + name)
	}
	return c
}
