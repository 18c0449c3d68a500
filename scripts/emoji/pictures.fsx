// What is seen in pictures: layout of colour, contours, colours, silhouette, hues.
#load "axes.fsx"

open System
open Cmcl
open TorchSharp
open Inventory
open Render
open Axes

let private pool (x: torch.Tensor) (cells: int64) = torch.nn.functional.adaptive_avg_pool2d (x, [| cells; cells |])

/// Orientation histograms: gradient energy in 9 unsigned directions, over a grid of cells, each cell's root taken.
let private orientations (grey: torch.Tensor) (cells: int64) =
    let dx = grey.narrow (3L, 2L, 62L) - grey.narrow (3L, 0L, 62L)
    let dy = grey.narrow (2L, 2L, 62L) - grey.narrow (2L, 0L, 62L)
    let dx, dy = dx.narrow (2L, 1L, 62L), dy.narrow (3L, 1L, 62L)
    let strength = (dx.squared () .+ dy.squared ()).sqrt()
    let angle = torch.atan2(dy, dx).remainder(Math.PI.AsScalar())

    let energy bin =
        let centre = (float bin + 0.5) * Math.PI / 9.0
        let away = (angle - centre.AsScalar()).abs()
        let away = torch.minimum (away, away.neg().plus Math.PI)
        let share = (away * (-9.0 / Math.PI).AsScalar()).plus(1.0).clamp_min(0.0.AsScalar())
        pool (strength * share) cells

    torch.cat([| for bin in 0..8 -> energy bin |], 1L).sqrt()

/// What is seen in pictures (n × 3 × 64 × 64): layout of colour, contours, colours, silhouette, hues.
let private see (x: torch.Tensor) =
    let grey = x.mean ([| 1L |], true)
    let ink = (x.amin ([| 1L |], true) * (-1.0).AsScalar()).plus(1.0)
    let highest, lowest = x.amax ([| 1L |], true), x.amin ([| 1L |], true)
    let saturation = highest - lowest
    let present = ink.gt(0.08.AsScalar()).``to`` torch.float64

    let colours =
        // 4 × 4 × 4 bins of what is not background.
        let bin = (x * 3.999.AsScalar()).floor().``to`` torch.int64
        let index = bin.select (1L, 0L) * 16L.AsScalar() + bin.select (1L, 1L) * 4L.AsScalar() + bin.select (1L, 2L)
        let flat = index.reshape (x.shape[0], -1L)
        torch.zeros(x.shape[0], 64L, dtype = torch.float64).scatter_add_(1L, flat, present.reshape (x.shape[0], -1L)).sqrt()

    let hues =
        let r, g, b = x.narrow (1L, 0L, 1L), x.narrow (1L, 1L, 1L), x.narrow (1L, 2L, 1L)
        let hue = torch.atan2((g - b) * (sqrt 3.0).AsScalar(), r * 2.0.AsScalar() - g - b).plus(Math.PI)
        let bin = (hue * (11.999 / (2.0 * Math.PI)).AsScalar()).floor().``to``(torch.int64).reshape(x.shape[0], -1L)
        torch.zeros(x.shape[0], 12L, dtype = torch.float64).scatter_add_(1L, bin, saturation.reshape (x.shape[0], -1L)).sqrt()

    struct (grey, ink, pool (x.neg().plus(1.0)) 8L, colours, hues)

let private look (name: string) (n: int) : torch.Tensor =
    use scope = torch.NewDisposeScope()
    let x = torch.tensor(pictures name n).reshape([| int64 n; 3L; 64L; 64L |]).``to`` torch.float64
    let struct (grey, ink, layout, colours, hues) = see x

    scope.MoveToOuter(
        groups
            [ 1.0, layout
              1.2, orientations grey 8L
              1.0, orientations grey 4L
              0.7, colours
              0.7, pool ink 16L
              0.5, hues ]
    )

/// A picture set for all items, and base items in other views where there are any.
let private viewsOf (name: string) = look (name + "-views") (views.Length * baseRows.Length)

/// The four picture sets.
let encodePictures () =
    let seen = [ for set in [ "noto"; "twemoji"; "fluent" ] -> set, look set items.Length ]
    let notoViews = viewsOf "noto"

    let vision =
        axes
            true
            (torch.cat (
                [| yield notoViews
                   for _, x in seen do
                       yield rowsOf x baseRows |],
                0L
            ))

    let line, lineViews = look "hc" items.Length, viewsOf "hc"
    let lineAxes = axes true (torch.cat ([| lineViews; rowsOf line baseRows |], 0L))

    [ for set, x in seen do
          { Name = $"vision:{set}"
            Modality = "vision"
            Items = project vision x
            Views = if set = "noto" then ofViews (project vision notoViews) else [] }
      { Name = "line:hc"
        Modality = "line"
        Items = project lineAxes line
        Views = ofViews (project lineAxes lineViews) } ]
