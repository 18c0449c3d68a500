namespace Cmcl

/// How a metric of one method varies with the order of the steps, apart from how it varies with the seed.
type OrderSpread =
    {
        Stream: string
        Method: string
        Metric: Metric
        /// Orders with a figure, and cells in all of them.
        Orders: int
        Cells: int
        /// Mean over orders of the means over seeds.
        Mean: float
        /// √(Σ_o Σ_s (x_os − x̄_o)² / Σ_o (n_o − 1)), pooled within orders; None where no order has two seeds.
        SdSeeds: float option
        /// Sample standard deviation of the x̄_o; None for one order.
        SdOrders: float option
    }

[<RequireQualifiedAccess>]
module OrderSpread =
    /// What the two deviations are.
    let covers =
        "Every order is a permutation of the steps, drawn once. The deviation over orders is that of their means over seeds, so it holds a little of the \
         seeds' too: sd over seeds by √n. Where it is much larger than that, a difference seen in one order need not hold in another."

    /// From the values of each order's seeds; None where there are none.
    let private decompose (orders: float list list) : (int * int * float * float option * float option) option =
        let orders = orders |> List.filter (fun values -> not values.IsEmpty)
        let within = orders |> List.choose Transfer.meanSd

        Transfer.meanSd (within |> List.map _.Mean)
        |> Option.map (fun between ->
            let freedom = within |> List.sumBy (fun s -> s.Count - 1)

            let squares = within |> List.sumBy (fun s -> float (s.Count - 1) * (Option.defaultValue 0.0 s.Sd) ** 2.0)

            let pooled = if freedom > 0 then Some(sqrt (squares / float freedom)) else None
            orders.Length, List.sumBy List.length orders, between.Mean, pooled, between.Sd)

    /// Every method on every metric that it has.
    let all (metrics: Metric list) (m: Measured) : OrderSpread list =
        let orders = m.Comparison.Cells |> List.map (fun (cell, _) -> cell.Order) |> List.distinct |> List.sort

        [ for stream in m.Comparison.Streams do
              for label in Measured.methods m do
                  for metric in metrics do
                      let values = [ for order in orders -> Measured.bySeed stream order label metric m |> List.map snd ]

                      match decompose values with
                      | Some(orders, cells, mean, seeds, between) ->
                          { Stream = stream
                            Method = label
                            Metric = metric
                            Orders = orders
                            Cells = cells
                            Mean = mean
                            SdSeeds = seeds
                            SdOrders = between }
                      | None -> () ]
