import { defineConfig } from "vite";

export default defineConfig({
  server: {
    proxy: {
      "/stream": {
        target: "http://127.0.0.1:5000",
        configure(proxy) {
          proxy.on("proxyRes", (upstream, request, response) => {
            response.on("close", () => upstream.destroy());
          });
        },
      },
    },
  },
});
