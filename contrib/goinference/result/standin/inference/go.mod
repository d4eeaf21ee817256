// A stand-in for the later line of go-inference. Nothing but a replace directive
// may point here.
module dappco.re/go/inference

go 1.26.2

require dappco.re/go v0.12.0

replace dappco.re/go => ../core
