package main

var moves = map[string]map[string]string{}
