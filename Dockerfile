# The service with its command line. Configuration, key and state live in /realize, files in /data:
#   docker run -d --name realize -p 9771:9771 -v realize-home:/realize -v ~/Documents:/data/documents realize
#   docker exec realize realize arena add documents /data/documents
FROM node:20-bookworm-slim AS build
WORKDIR /build
COPY . .
# `npm ci` compiles as well (the `prepare` script); tests and benchmark are not needed at run time.
RUN npm ci && npm prune --omit=dev --ignore-scripts && rm -rf dist/test dist/bench

FROM node:20-bookworm-slim
ENV NODE_ENV=production REALIZE_HOME=/realize
COPY --from=build /build/package.json /build/LICENSE /opt/realize/
COPY --from=build /build/node_modules /opt/realize/node_modules
COPY --from=build /build/dist /opt/realize/dist
RUN ln -s /opt/realize/dist/supervisor/main.js /usr/local/bin/realized \
 && ln -s /opt/realize/dist/cli/main.js /usr/local/bin/realize \
 && install -d -o node -g node -m 0700 /realize \
 && install -d -o node -g node /data
USER node
WORKDIR /data
VOLUME ["/realize", "/data"]
EXPOSE 9771
HEALTHCHECK --interval=30s --timeout=10s --start-period=30s CMD ["realize", "status", "--json"]
ENTRYPOINT ["realized"]
CMD ["--log-format", "json"]
