/// H₁ D C₁ + κ H₀ D C₀ = R: its solution, its limits, and what it says of old scores.
module Cmcl.Tests.TwoSidedTests

open Cmcl
open Expecto
open Cmcl.Tests.Checks
open TorchSharp

/// A moment of random rows, definite by a share of the identity.
let private moment (c: Case) (purpose: string) (d: int64) : torch.Tensor =
    let x = normal c purpose (d + 2L) d
    x.t().mm(x) / number (float d) .+ torch.eye (d, dtype = torch.float64) * number 0.05

type private Problem =
    { H1: torch.Tensor
      C1: torch.Tensor
      H0: torch.Tensor
      C0: torch.Tensor
      R: torch.Tensor }

    member p.Equation = TwoSided.make (TwoSided.pencil p.H1 p.H0) (TwoSided.pencil p.C1 p.C0) p.R

let private problem (c: Case) =
    { H1 = moment c "h1" c.D
      C1 = moment c "c1" c.Da
      H0 = moment c "h0" c.D
      C0 = moment c "c0" c.Da
      R = normal c "r" c.D c.Da }

let private square (h: torch.Tensor) (d: torch.Tensor) (c: torch.Tensor) : float = item ((h.mm(d).mm c * d).sum())

let tests =
    testList
        "Two-sided"
        [ property "the solution solves it, at every price" (fun c ->
              let p = problem c

              for kappa in [ 0.0; 1e-3; 1.0; 1e3; 1e6 ] do
                  untouched "a solution" [ p.H1; p.C1; p.H0; p.C0; p.R ] (fun () ->
                      let d = TwoSided.solve kappa p.Equation
                      let left = p.H1.mm(d).mm p.C1 .+ p.H0.mm(d).mm p.C0 * number kappa
                      same $"κ = {kappa}" 1e-8 left p.R))

          property "what is paid for falls with the price, from the free optimum to nothing" (fun c ->
              let p = problem c
              let e = p.Equation
              let prices = [ 0.0; 0.01; 0.1; 1.0; 10.0; 100.0; 1e4; 1e12 ]
              let paid = [ for kappa in prices -> TwoSided.paid kappa e ]

              for kappa, size in List.zip prices paid do
                  near $"κ = {kappa}: as it is written" 1e-8 size (sqrt (square p.H0 (TwoSided.solve kappa e) p.C0))

              for before, next in List.pairwise paid do
                  Expect.isLessThanOrEqual next (before * (1.0 + 1e-12)) "monotone"

              let free = torch.linalg.solve(p.H1, p.R).mm(torch.linalg.inv p.C1)
              same "κ = 0" 1e-8 (TwoSided.solve 0.0 e) free
              Expect.isLessThan (List.last paid) (1e-9 * (1.0 + paid[0])) "κ without end")

          property "the sums of old pairs bound the sum over them" (fun c ->
              let d = normal c "d" c.D c.Da
              let hs, cs = [ for i in 1..3 -> moment c $"h {i}" c.D ], [ for i in 1..3 -> moment c $"c {i}" c.Da ]
              let apart = List.map2 (fun h c -> square h d c) hs cs |> List.sum
              let together = square (List.reduce (.+) hs) d (List.reduce (.+) cs)
              Expect.isLessThanOrEqual apart (together * (1.0 + 1e-12)) "all rows with all outputs")

          property "what neither side sees does not move" (fun c ->
              let p = problem c
              let none = torch.zeros_like p.H1
              let e = TwoSided.make (TwoSided.pencil none p.H0) (TwoSided.pencil p.C1 p.C0) p.R
              Expect.equal (Tensors.norm (TwoSided.solve 0.0 e)) 0.0 "κ = 0")

          test "a moment that is not finite is a fault" (fun () ->
              let broken = Tensors.ofRows [ [ nan; 0.0 ]; [ 0.0; 1.0 ] ]
              let good = torch.eye (2L, dtype = torch.float64)
              Expect.stringContains (faultOf (fun () -> TwoSided.pencil broken good)).Message "a moment of new rows" "new"
              Expect.stringContains (faultOf (fun () -> TwoSided.pencil good broken)).Message "a moment of old rows" "old") ]
