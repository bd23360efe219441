package main

// functions lists everything that is generated.
func functions() []*function {
	list := []*function{
		{name: "ReLU", params: params("y x *float32, n int")},
		{name: "Leaky", params: params("y x *float32, n int")},
		{name: "ELU", params: params("y x *float32, n int")},
		{name: "GELU", params: params("y x *float32, n int")},
		{name: "SiLU", params: params("y x *float32, n int")},
		{name: "Tanh", params: params("y x *float32, n int")},
		{name: "Sigmoid", params: params("y x *float32, n int")},
		{name: "Softplus", params: params("y x *float32, n int")},
		{name: "ReLUBack", params: params("grad x *float32, n int")},
		{name: "LeakyBack", params: params("grad x *float32, n int")},
		{name: "ELUBack", params: params("grad y x *float32, n int")},
		{name: "GELUBack", params: params("grad x *float32, n int")},
		{name: "SiLUBack", params: params("grad x *float32, n int")},
		{name: "TanhBack", params: params("grad y *float32, n int")},
		{name: "SigmoidBack", params: params("grad y *float32, n int")},
		{name: "SoftplusBack", params: params("grad x *float32, n int")},

		{name: "ClampLogVar", params: params("lv raw *float32, n int")},
		{name: "KL", params: params("kl mu lv *float32, n int")},
		{name: "Sample", params: params("z sd mu lv noise *float32, n int")},
		{name: "KLBack", params: params("dmu dlv dz mu lv raw kl noise sd weight *float32, latents int, beta half freeBits float32")},

		{name: "GaussSum", params: params("err y x w *float32, features slices int")},
		{name: "GaussSigmoidSum", params: params("err y x w *float32, features slices int")},
		{name: "BernSum", params: params("err y x *float32, features slices int, keep smooth float32")},
		{name: "GaussTerms", params: params("t y x w *float32, features slices int")},
		{name: "BernTerms", params: params("t y x *float32, features slices int, keep smooth float32")},
		{name: "AddTerms", params: params("err t *float32, features slices int")},
		{name: "MaskTerms", params: params("t mask c *float32, features slices int")},
		{name: "GaussRow", params: params("q y x w *float32, n int")},
		{name: "BernRow", params: params("q y x *float32, n int, keep smooth float32")},
		{name: "Chain", params: params("acc q *float32, n stride rows int")},
		{name: "CatTerms", params: params("t y x *float32, outputs slices int, smooth float32")},
		{name: "CatGrad", params: params("grad y x weight *float32, outputs int, keep smooth float32")},
		{name: "GaussGrad", params: params("grad dls y x weight w *float32, features int")},
		{name: "GaussGradMask", params: params("grad dls y x mask weight w *float32, features int")},
		{name: "BernGrad", params: params("grad y x weight *float32, features int, keep smooth float32")},
		{name: "BernGradMask", params: params("grad y x mask weight *float32, features int, keep smooth float32")},
		{name: "SumLanes", params: params("db dy *float32, features int")},

		{name: "Adam", params: params("params grads mean square *float32, n int, beta1 beta2 rest1 rest2 rate root eps keep l2 float32")},
		{name: "SGD", params: params("params grads *float32, n int, rate decay float32")},
		{name: "Momentum", params: params("params grads velocity *float32, n int, rate momentum decay float32")},
		{name: "Nesterov", params: params("params grads velocity *float32, n int, rate momentum decay float32")},
		{name: "RMSProp", params: params("params grads square *float32, n int, rate alpha rest eps decay float32")},
		{name: "RMSPropMomentum", params: params("params grads square velocity *float32, n int, rate alpha rest eps momentum decay float32")},
		{name: "Add", params: params("dst src *float32, n int")},
		{name: "Scale", params: params("dst *float32, n int, s float32")},
		{name: "SumSquares", params: params("v *float32, n int, total *float64")},

		{name: "Pack32", params: params("dst src ahead *float32, slices int, hi inv lo limit float32, bad *uint64")},
		{name: "Pack64", params: params("dst *float32, src *float64, slices int, mean inv float64, limit float32, bad *uint64")},
		{name: "PackRow", params: params("v hi inv lo *float32, n int, limit float32, bad *uint64")},
		{name: "Transpose", params: params("dst src *float32, n int")},
		{name: "Gather", params: params("dst *float32, rows **float32, n int")},
	}
	for _, f := range list {
		f.build, f.raw = programs[f.name], moves[f.name]
	}
	return list
}
