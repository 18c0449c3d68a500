namespace Cmcl

/// Two forms against each other where they were timed in the same rounds.
type Ratio =
    {
        Extent: Extent
        Threads: int
        /// `block` over `none`.
        DnsOverNone: float option
        /// `published` over `block`.
        PublishedOverDns: float option
    }

/// What timings say together: ratios, and how cost grows.
[<RequireQualifiedAccess>]
module Scaling =
    /// The ratios of every contest, in the order in which they were timed.
    let ratios (found: Iteration list) : Ratio list =
        [ for (extent, threads), own in found |> List.groupBy (fun i -> i.Extent, i.Threads) do
              let timing name = own |> List.tryFind (fun i -> i.Form = name) |> Option.map _.Timing

              { Extent = extent
                Threads = threads
                DnsOverNone = Option.map2 Timing.over (timing "none") (timing "block")
                PublishedOverDns = Option.map2 Timing.over (timing "block") (timing "published") } ]

    /// Median seconds against what `x` reads, a series a form in the order of their first rows, each with its law.
    let series (x: 'row -> float) (form: 'row -> string) (timing: 'row -> Timing) (rows: 'row list) =
        [ for name, own in rows |> List.groupBy form do
              let points = [ for row in own -> x row, (timing row).Median ] |> List.sortBy fst
              name, points, PowerLaw.fit points ]

    /// Seconds of an iteration against d.
    let byWidth (found: Iteration list) : (string * (float * float) list * PowerLaw option) list =
        series (fun (i: Iteration) -> float i.Extent.Width) _.Form _.Timing found

    /// Seconds of a whole step against its rows.
    let byRows (found: WholeStep list) : (string * (float * float) list * PowerLaw option) list =
        series (fun (s: WholeStep) -> float s.Rows) _.Form _.Total found
