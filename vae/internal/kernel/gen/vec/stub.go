package main

type program struct{}
type backend interface{}
type constants struct{ target *target }

func (c *constants) data() string                       { return "" }
func newAMD64(*target) backend                          { return nil }
func newARM64(*target) backend                          { return nil }
func lower(f *function, t *target, c *constants) string { return "" }

var programs = map[string]func(*program){}
var moves = map[string]map[string]string{}
