// A stand-in for the module that declares Result. Nothing but a replace
// directive may point here.
module dappco.re/go

go 1.26.2
