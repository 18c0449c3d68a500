namespace Cmcl

open MathNet.Numerics.Distributions

/// A method less another on one metric, over the seeds that both have.
type Difference =
    {
        Stream: string
        Method: string
        Against: string
        Metric: Metric
        /// Mean of the differences seed by seed, their sample standard deviation, and how many.
        Over: Spread
        /// The 95 % t-interval of the mean; None for a single seed.
        Interval: (float * float) option
    }

/// Differences between methods that were run with the same seeds, in the stream's own order of steps.
[<RequireQualifiedAccess>]
module Differences =
    /// What the intervals cover, and what they do not.
    let covers =
        "Differences are taken seed by seed; a seed decides the order of rows within the steps and whatever a method draws, nothing else. So an \
         interval tells what the mean difference would be over more seeds, on this stream with its features, its split and its order of steps. It \
         does not cover other data or other encoders. Every interval is at 95 % by itself (Student's t, taking the differences for normal); none is \
         corrected for how many methods and metrics are compared."

    /// The half-width in standard errors of a 95 % interval of the mean of n values: the 0.975 quantile of Student's t with
    /// n − 1 degrees of freedom. As in `Differences.quantile 10`, which is 2.262.
    let quantile (n: int) : float = StudentT.InvCDF(0.0, 1.0, float (n - 1), 0.975)

    /// mean ± t sd/√n; None for fewer than two values.
    let interval (s: Spread) : (float * float) option =
        s.Sd
        |> Option.map (fun sd ->
            let half = quantile s.Count * sd / sqrt (float s.Count)
            s.Mean - half, s.Mean + half)

    /// What the others are held against: the method named; without a name the first of this toolkit's own, `dns` if it is there, or the first
    /// that trains step by step, or the first. Fault: `Unknown`.
    let against (wanted: string option) (m: Measured) : Result<string option, Fault list> =
        let methods = Measured.methods m

        match wanted with
        | Some name when List.contains name methods -> Ok(Some name)
        | Some name -> Error [ Fault.Unknown("method in this comparison", name, methods) ]
        | None ->
            Ok(
                Roles.first (Measured.roles m) Role.Subject methods
                |> Option.orElse (Measured.competing m @ methods |> List.tryHead)
            )

    /// Every method but `against` itself, less it, on every metric that both have for some seed.
    let all (metrics: Metric list) (against: string) (m: Measured) : Difference list =
        [ for stream in m.Comparison.Streams do
              for label in Measured.methods m |> List.except [ against ] do
                  for metric in metrics do
                      let base' = Measured.bySeed stream 0 against metric m |> Map.ofList

                      let differences =
                          [ for seed, value in Measured.bySeed stream 0 label metric m do
                                match Map.tryFind seed base' with
                                | Some other -> value - other
                                | None -> () ]

                      match Transfer.meanSd differences with
                      | Some over ->
                          { Stream = stream
                            Method = label
                            Against = against
                            Metric = metric
                            Over = over
                            Interval = interval over }
                      | None -> () ]
