namespace Cmcl.CSharp;

/// <summary>The native libtorch that everything computes with.</summary>
public static class Libtorch
{
    /// <summary>
    /// Loads it. All that this library offers does so by itself; call it before a first use of your own of
    /// <c>TorchSharp.torch</c>. Nothing happens the second time.
    /// </summary>
    /// <exception cref="CmclException">It cannot be loaded; the message says how to bring one.</exception>
    public static void Ready()
    {
        Native.init();
        var loaded = Native.libtorch();

        if (loaded.IsError)
        {
            throw new CmclException(Fault.NewNoLibtorch(loaded.ErrorValue));
        }
    }
}
