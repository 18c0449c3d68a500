namespace Cmcl

/// How much of a metric's spread comes from where, for one method: from the split of the items, from the order of the steps, from the seed.
type SpreadParts =
    {
        Stream: string
        Method: string
        Metric: Metric
        /// Splits with a figure, orders in all of them, cells in all of those.
        Splits: int
        Orders: int
        Cells: int
        /// Mean over splits of the means over orders of the means over seeds.
        Mean: float
        /// Sample standard deviation over all cells; None for one.
        Sd: float option
        /// √(Σ_g Σ_s (x_gs − x̄_g)² / Σ_g (n_g − 1)), pooled within every order of every split; None where none has two seeds.
        SdSeeds: float option
        /// The same of the means over seeds within every split; None where no split has two orders.
        SdOrders: float option
        /// Sample standard deviation of the means of the splits; None for one split.
        SdSplits: float option
    }

[<RequireQualifiedAccess>]
module SpreadParts =
    /// What the deviations are.
    let covers =
        "Every order is a permutation of the steps, and every split another drawing of the items that are held out, each drawn once. A deviation over \
         orders is that of their means over seeds, and one over splits that of their means over orders, so each holds a little of what is below it: \
         the sd there by √n. Where one is much larger than that, a difference seen in one order, or in one split, need not hold in another."

    /// The deviation within groups, all groups together.
    let private pooled (groups: float list list) : float option =
        let spreads = groups |> List.choose Transfer.meanSd
        let freedom = spreads |> List.sumBy (fun s -> s.Count - 1)
        let squares = spreads |> List.sumBy (fun s -> float (s.Count - 1) * (Option.defaultValue 0.0 s.Sd) ** 2.0)
        if freedom > 0 then Some(sqrt (squares / float freedom)) else None

    /// From split, order and value of every cell; None where there are none.
    let private decompose (values: (int * int * float) list) =
        let split (s, _, _) = s
        let order (_, o, _) = o
        let value (_, _, v) = v

        let bySplit =
            [ for _, own in List.groupBy split values -> [ for _, seeds in List.groupBy order own -> List.map value seeds ] ]

        let means = bySplit |> List.map (List.map List.average)

        match values |> List.map value |> Transfer.meanSd, means |> List.map List.average |> Transfer.meanSd with
        | Some all, Some splits ->
            Some
                {| Splits = bySplit.Length
                   Orders = List.sumBy List.length bySplit
                   Cells = values.Length
                   Mean = splits.Mean
                   Sd = all.Sd
                   SdSeeds = pooled (List.concat bySplit)
                   SdOrders = pooled means
                   SdSplits = splits.Sd |}
        | _ -> None

    /// Every method on every metric that it has.
    let all (metrics: Metric list) (m: Measured) : SpreadParts list =
        let orders = m.Comparison.Cells |> List.map (fun (cell, _) -> cell.Order) |> List.distinct |> List.sort

        [ for stream in m.Comparison.Streams do
              for label in Measured.methods m do
                  for metric in metrics do
                      let values =
                          [ for order in orders do
                                for replicate, value in Measured.replicates stream order label metric m ->
                                    replicate.Split, order, value ]

                      match decompose values with
                      | Some d ->
                          { Stream = stream
                            Method = label
                            Metric = metric
                            Splits = d.Splits
                            Orders = d.Orders
                            Cells = d.Cells
                            Mean = d.Mean
                            Sd = d.Sd
                            SdSeeds = d.SdSeeds
                            SdOrders = d.SdOrders
                            SdSplits = d.SdSplits }
                      | None -> () ]
